//! A name server for nodes that look for each other by a DNS name.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};

/// A name server that knows one name, until it is dropped.
pub struct NameServer {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    answering: Option<std::thread::JoinHandle<()>>,
}

impl NameServer {
    pub fn knowing(name: &'static str, addresses: Vec<IpAddr>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let answering = std::thread::spawn(move || {
            let mut buffer = [0; 4_096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).expect("a question");
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let answer = answer(&buffer[..length], name, &addresses);
                socket.send_to(&answer, from).expect("sent");
            }
        });
        Self { address, stop, answering: Some(answering) }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes it up.
        let wake = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"-", self.address));
        if let (Ok(_), Some(answering)) = (wake, self.answering.take()) {
            let _ = answering.join();
        }
    }
}

fn answer(question: &[u8], name: &str, addresses: &[IpAddr]) -> Vec<u8> {
    let mut message = Message::from_vec(question).expect("a question");
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
    message.to_vec().expect("an answer")
}
