//! Peers are found by address, in a file and in DNS, all sources together.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use ledger_node::forming::PeerDiscovery;
use ledger_server::discovery::{Discovery, DiscoverySettings, DnsName};
use tokio::net::UdpSocket;

/// A name server that knows one name, and says so until it is dropped.
struct NameServer {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl NameServer {
    async fn knowing(name: &'static str, addresses: &[&str]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let addresses: Arc<[IpAddr]> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let answer = answer(&buffer[..length], name, &addresses);
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        Self { address, task }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(question: &[u8], name: &str, addresses: &[IpAddr]) -> Vec<u8> {
    let mut message = Message::from_vec(question).unwrap();
    let query = message.queries[0].clone();
    message.metadata.message_type = MessageType::Response;
    message.additionals.clear();
    message.edns = None;
    if query.name().to_ascii().trim_end_matches('.').eq_ignore_ascii_case(name) {
        let records = addresses.iter().filter_map(|address| match (address, query.query_type()) {
            (IpAddr::V4(ip), RecordType::A) => Some(RData::A((*ip).into())),
            (IpAddr::V6(ip), RecordType::AAAA) => Some(RData::AAAA((*ip).into())),
            _ => None,
        });
        message.answers = records.map(|data| Record::from_rdata(query.name().clone(), 300, data)).collect();
    } else {
        message.metadata.response_code = ResponseCode::NXDomain;
    }
    message.to_vec().unwrap()
}

fn by_name(name: &str, server: SocketAddr) -> DiscoverySettings {
    DiscoverySettings {
        dns: Some(DnsName::parse(name, 50_052).unwrap()),
        resolver: Some(server),
        ..DiscoverySettings::default()
    }
}

#[tokio::test]
async fn every_address_of_a_name_is_a_peer_and_a_name_that_alone_is_given_and_has_none_is_named() {
    let server = NameServer::knowing("ledger.example.com", &["10.0.0.1", "10.0.0.2", "2001:db8::1"]).await;
    let look = async |name| Discovery::new(by_name(name, server.address)).unwrap().addresses().await;
    assert_eq!(
        look("ledger.example.com").await.unwrap(),
        ["10.0.0.1:50052", "10.0.0.2:50052", "[2001:db8::1]:50052"]
    );
    assert_eq!(look("ledger.example.com:7").await.unwrap().len(), 3);
    let missing = look("other.example.com").await.unwrap_err();
    assert!(missing.contains("other.example.com does not exist"), "{missing}");
    let mut settings = by_name("other.example.com", server.address);
    settings.join(&["10.0.0.9:7".to_owned()], 50_052).unwrap();
    let known = Discovery::new(settings).unwrap().addresses().await;
    assert_eq!(known.unwrap(), ["10.0.0.9:7"], "others that are known may answer all the same");
}

#[tokio::test]
async fn a_name_server_that_does_not_answer_makes_the_look_incomplete() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut settings = by_name("ledger.example.com", silent.local_addr().unwrap());
    settings.join(&["10.0.0.1:7".to_owned()], 50_052).unwrap();
    let failed = Discovery::new(settings).unwrap().addresses().await.unwrap_err();
    assert!(failed.contains("ledger.example.com"), "{failed}");
}

#[tokio::test]
async fn addresses_and_a_file_count_together_and_only_a_lone_file_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peers.cache");
    let with = |items: &[&str]| {
        let mut settings = DiscoverySettings::default();
        let items: Vec<_> = items.iter().map(|item| (*item).to_owned()).collect();
        settings.join(&items, 50_052).unwrap();
        Discovery::new(settings).unwrap()
    };
    let path = file.to_str().unwrap();
    let missing = with(&[path]).addresses().await.unwrap_err();
    assert!(missing.contains("does not exist") && missing.contains("cached_at"), "{missing}");
    assert_eq!(with(&[path, "10.0.0.1"]).addresses().await.unwrap(), ["10.0.0.1:50052"]);
    std::fs::write(&file, r#"{"cached_at":0,"peers":[{"addr":"10.0.0.2:50052"}]}"#).unwrap();
    assert_eq!(with(&[path, "10.0.0.1"]).addresses().await.unwrap(), ["10.0.0.1:50052", "10.0.0.2:50052"]);
    std::fs::write(&file, r#"{"cached_at":1,"peers":[]}"#).unwrap();
    assert!(with(&[path, "10.0.0.1"]).addresses().await.unwrap_err().contains("--join-ttl"));
}
