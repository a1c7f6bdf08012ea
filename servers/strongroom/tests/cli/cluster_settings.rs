//! What each setting of a node among others changes, seen on real processes that speak to each other on loopback.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::every_setting::{refused, settings, started};
use crate::harness::{Home, Server, eventually, free_port};
use crate::name_server::NameServer;
use crate::unready::Unready;

/// One node of a test's cluster, with a directory of its own.
pub fn node(home: &Home, name: &str, peers: SocketAddr, flags: &[&str]) -> Command {
    let (data, peers) = (home.path(name).display().to_string(), peers.to_string());
    let fixed = ["ledger", "serve", "--json"];
    let own = ["--data", &data, "--name", name, "--peer-listen", &peers, "--poll", "50ms"];
    let free = ["--listen", "--metrics"].into_iter().filter(|flag| !flags.contains(flag));
    let free: Vec<&str> = free.flat_map(|flag| [flag, "127.0.0.1:0"]).collect();
    home.command(&[fixed.as_slice(), &free, &own, flags].concat())
}

/// Starts nodes that wait for each other.
pub fn together(commands: Vec<Command>) -> Vec<Server> {
    let start = |mut command: Command| {
        std::thread::spawn(move || Server::spawn(&mut command).unwrap_or_else(|said| panic!("{said:?}")))
    };
    let starting: Vec<_> = commands.into_iter().map(start).collect();
    starting.into_iter().map(|thread| thread.join().expect("ready")).collect()
}

/// Two founders at these addresses.
pub fn two(home: &Home, ports: [SocketAddr; 2], flags: &[&str]) -> Vec<Server> {
    let flags = [&["--bootstrap", "2"], flags].concat();
    together(vec![node(home, "node-1", ports[0], &flags), node(home, "node-2", ports[1], &flags)])
}

/// The administrator's token of a cluster, which its first leader wrote.
pub fn token(home: &Home) -> String {
    eventually("a token is minted", || {
        let file = |name: &str| home.path(name).join("admin.token");
        (1..=4).map(|n| file(&format!("node-{n}"))).find(|file| file.exists())
    })
    .display()
    .to_string()
}

pub fn at(home: &Home, server: &Server, command: &[&str]) -> Value {
    let token = token(home);
    home.json(&[command, &["--url", server.url(), "--token-file", &token]].concat())
}

/// Makes a namespace.
fn make(home: &Home, server: &Server, name: &str) {
    let (token, command) = (token(home), ["ledger", "namespace", "create", name]);
    let at = ["--url", server.url(), "--token-file", &token];
    home.persists(&[command.as_slice(), &at].concat(), "NAMESPACE_EXISTS");
}

pub fn status(home: &Home, server: &Server) -> Value {
    at(home, server, &["ledger", "cluster", "status"])
}

fn ids(servers: &[Server]) -> Vec<u64> {
    servers.iter().map(|server| server.ready["nodes"][0]["id"].as_u64().expect("an id")).collect()
}

/// All of them are in one cluster with so many members; each hears of the others in its time.
pub fn assert_one_cluster(home: &Home, servers: &[Server]) {
    eventually("every node knows all members", || {
        let seen: Vec<Value> = servers.iter().map(|server| status(home, server)).collect();
        let members = |status: &Value| status["members"].as_array().map(Vec::len);
        assert!(seen.iter().all(|one| one["cluster_id"] == seen[0]["cluster_id"]), "{seen:?}");
        seen.iter().all(|one| members(one) == Some(servers.len())).then_some(())
    });
}

/// Role of a node, as the cluster says.
fn role(home: &Home, asked: &Server, id: u64) -> Option<String> {
    let status = status(home, asked);
    let members = status["members"].as_array().expect("a list");
    let member = members.iter().find(|member| member["id"] == id)?;
    member["role"].as_str().map(str::to_owned)
}

/// A port that counts who calls, and hangs up.
struct Callers {
    address: SocketAddr,
    count: Arc<AtomicU64>,
}

impl Callers {
    fn counted() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let count = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&count);
        std::thread::spawn(move || {
            for _connection in listener.incoming() {
                counting.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { address, count }
    }

    /// How often a node with these flags, which finds no cluster in two seconds, calls.
    fn during_a_vain_start(&self, flags: &[&str]) -> u64 {
        let before = self.count.load(Ordering::Relaxed);
        let vain = ["--bootstrap", "2", "--bootstrap-timeout", "2s", "--peer-insecure"];
        refused(&Home::new(), &[vain.as_slice(), flags].concat());
        self.count.load(Ordering::Relaxed) - before
    }
}

/// Certificates for `node-1` and `node-2` of one authority in a folder, made by the program itself.
fn certified(home: &Home, folder: &str) {
    let folder = home.path(folder).display().to_string();
    home.run(&["certs", "ca", "--out", &folder]);
    for name in ["node-1", "node-2"] {
        let said = home.run(&["certs", "node", name, "--ca", &folder, "--out", &folder]);
        assert_eq!(said.code, 0, "{said:?}");
    }
}

/// Flags of a node's certificate, its key and its authorities, each from a folder.
fn tls(home: &Home, name: &str, folders: [&str; 3]) -> Vec<String> {
    let file = |folder: &str, file: String| home.path(folder).join(file).display().to_string();
    let [certificate, key, authorities] = folders;
    vec![
        "--peer-tls-cert".to_owned(),
        file(certificate, format!("{name}.pem")),
        "--peer-tls-key".to_owned(),
        file(key, format!("{name}.key")),
        "--peer-ca".to_owned(),
        file(authorities, "ca.pem".to_owned()),
    ]
}

/// Starts `node-1` and `node-2` with these files for the second one; both wait for each other for so long.
fn two_with_tls(home: &Home, second: [&str; 3], patience: &str) -> Vec<Result<Server, crate::harness::Said>> {
    let ports = [free_port(), free_port()];
    let join = format!("{},{}", ports[0], ports[1]);
    let nodes = [("node-1", ports[0], ["ours"; 3]), ("node-2", ports[1], second)];
    let starting: Vec<_> = nodes
        .into_iter()
        .map(|(name, port, folders)| {
            let files = tls(home, name, folders);
            let mut flags = vec!["--bootstrap", "2", "--join", &join, "--bootstrap-timeout", patience];
            flags.extend(files.iter().map(String::as_str));
            let mut command = node(home, name, port, &flags);
            std::thread::spawn(move || Server::spawn(&mut command))
        })
        .collect();
    starting.into_iter().map(|thread| thread.join().expect("an end")).collect()
}

settings! {
    bootstrap {
        let home = Home::new();
        started(&home, &["--bootstrap", "1"]).stop();
        let ports = [free_port(), free_port()];
        let servers = two(&home, ports, &["--peer-insecure", "--join", &format!("{},{}", ports[0], ports[1])]);
        assert_one_cluster(&home, &servers);
        assert!(refused(&home, &["--bootstrap", "8"]).contains("bootstrap"));
    }

    bootstrap_timeout {
        let asked = Instant::now();
        let alone = ["--bootstrap", "2", "--peer-insecure", "--bootstrap-timeout", "700ms"];
        let reason = refused(&Home::new(), &alone);
        assert!(asked.elapsed() >= Duration::from_millis(700) && asked.elapsed() < Duration::from_secs(30));
        assert!(reason.contains("--join") || reason.contains("2"), "{reason}");
    }

    poll {
        let peer = Callers::counted();
        let join = peer.address.to_string();
        let often = peer.during_a_vain_start(&["--join", &join, "--poll", "20ms"]);
        let rarely = peer.during_a_vain_start(&["--join", &join, "--poll", "1h"]);
        assert!(often > rarely && rarely >= 1, "{often} calls, {rarely} calls");
        assert!(refused(&Home::new(), &["--poll", "1ms"]).contains("poll"));
    }

    join {
        let home = Home::new();
        let ports = [free_port(), free_port()];
        let peers = format!(r#"{{"cached_at":0,"peers":[{{"addr":"{}"}},{{"addr":"{}"}}]}}"#, ports[0], ports[1]);
        let file = home.write("peers.cache", peers);
        let servers = two(&home, ports, &["--peer-insecure", "--join", &file]);
        assert_one_cluster(&home, &servers);
        assert!(refused(&home, &["--join", "one.json,two.json"]).contains("join"));
    }

    join_ttl {
        let home = Home::new();
        let peer = Callers::counted();
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let peers = format!(r#"{{"cached_at":{},"peers":[{{"addr":"{}"}}]}}"#, now_s - 100, peer.address);
        let file = home.write("peers.cache", peers);
        let calls = |ttl: &str| peer.during_a_vain_start(&["--join", &file, "--join-ttl", ttl, "--poll", "20ms"]);
        assert_eq!(calls("10s"), 0, "the addresses are too old");
        assert!(calls("1h") > 0);
    }

    discovery {
        let home = Home::new();
        // One port on two addresses, as a name has them.
        let port = free_port().port();
        let ports = [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([127, 0, 0, 2], port))];
        let server = NameServer::knowing("ledger.example.com", ports.map(|address| address.ip()).to_vec());
        let resolver = server.address.to_string();
        let name = format!("ledger.example.com:{port}");
        let flags = ["--peer-insecure", "--discovery", &name, "--discovery-resolver", &resolver];
        assert_one_cluster(&home, &two(&home, ports, &flags));
        assert!(refused(&home, &["--discovery", "no name:x"]).contains("discovery"));
    }

    discovery_resolver {
        let peer = Callers::counted();
        let server = NameServer::knowing("ledger.example.com", vec![peer.address.ip()]);
        let resolver = server.address.to_string();
        let name = format!("ledger.example.com:{}", peer.address.port());
        let calls = peer.during_a_vain_start(&["--discovery", &name, "--discovery-resolver", &resolver]);
        assert!(calls > 0, "the address that this resolver names is called");
    }

    peer_listen {
        let address = free_port();
        let server = started(&Home::new(), &["--peer-listen", &address.to_string(), "--peer-insecure"]);
        assert_eq!(server.ready["nodes"][0]["peer_addr"], address.to_string());
        std::net::TcpStream::connect(address).expect("it listens");
    }

    advertise {
        let home = Home::new();
        let ports = [free_port(), free_port()];
        let join = format!("{},{}", ports[0], ports[1]);
        let flags = |own: &str| ["--peer-insecure", "--bootstrap", "2", "--join", &join, "--advertise", own].map(str::to_owned);
        let commands = [("node-1", ports[0]), ("node-2", ports[1])].map(|(name, port)| {
            let flags = flags(&format!("localhost:{}", port.port()));
            node(&home, name, port, &flags.each_ref().map(String::as_str))
        });
        let servers = together(commands.into());
        let status = status(&home, &servers[0]);
        let addresses = status["members"].as_array().expect("a list").iter().map(|member| &member["peer_address"]);
        assert!(addresses.clone().all(|address| address.as_str().is_some_and(|text| text.starts_with("localhost:"))), "{status}");
        let everywhere = ["--peer-listen", "0.0.0.0:0", "--peer-insecure"];
        assert!(!refused(&home, &everywhere).is_empty());
    }

    name {
        let home = Home::new();
        let data = home.path("node-1").display().to_string();
        let peers = ["--peer-listen", "127.0.0.1:0", "--peer-insecure", "--bootstrap", "1"];
        let server = started(&home, &[&["--name", "oslo-7", "--data", &data], peers.as_slice()].concat());
        assert_eq!(status(&home, &server)["members"][0]["name"], "oslo-7");
        server.stop();
        assert!(refused(&home, &["--name", "no name"]).contains("name"));
    }

    peer_tls_cert {
        let home = Home::new();
        certified(&home, "ours");
        let servers: Vec<_> = two_with_tls(&home, ["ours"; 3], "60s").into_iter().map(|one| one.expect("ready")).collect();
        assert_one_cluster(&home, &servers);
        let most_of_a_year = 60.0 * 60.0 * 24.0 * 300.0 + servers[0].metric("process_start_time_seconds").expect("a time");
        let end = servers[0].metric("strongroom_certificate_not_after_seconds{certificate=\"peer\"}");
        assert!(end.is_some_and(|end| end > most_of_a_year), "{end:?}");
        let missing = ["--peer-tls-cert", "none.pem", "--peer-tls-key", "none.key", "--peer-ca", "none.pem"];
        assert!(refused(&home, &missing).contains("none.pem"));
    }

    peer_tls_key {
        let home = Home::new();
        certified(&home, "ours");
        certified(&home, "theirs");
        let files = tls(&home, "node-1", ["ours", "theirs", "ours"]);
        let files: Vec<_> = files.iter().map(String::as_str).collect();
        assert!(refused(&home, &[&["--name", "node-1"], files.as_slice()].concat()).contains("node-1.key"));
        assert!(refused(&home, &files[..2]).contains("--peer-tls-key"));
    }

    peer_ca {
        let home = Home::new();
        certified(&home, "ours");
        certified(&home, "theirs");
        // The second node is of another authority: neither lets the other take part.
        let said = two_with_tls(&home, ["theirs"; 3], "3s").into_iter();
        let said: Vec<_> = said.map(|refused| refused.err().expect("no cluster")).collect();
        let mistakes = ["is not good: UnknownIssuer", "refuses this node's certificate (UnknownCA)"];
        let names_the_mistake = |text: &str| mistakes.iter().any(|why| text.contains(why));
        for said in &said {
            assert!(said.stdout.contains("\"ready\":false"), "{said:?}");
            assert!(names_the_mistake(&said.stderr), "{said:?}");
            // Also who refuses says so.
            assert!(said.stderr.contains("TLS handshake failed"), "{said:?}");
        }
        // The message itself says why that peer does not count, not only the log: at least of the one that ends first,
        // while the other is there.
        assert!(said.iter().any(|said| names_the_mistake(&said.stdout)), "{said:?}");
    }

    peer_insecure {
        let home = Home::new();
        certified(&home, "ours");
        let ports = [free_port(), free_port()];
        let join = format!("{},{}", ports[0], ports[1]);
        let find = ["--bootstrap", "2", "--join", &join, "--bootstrap-timeout"];
        let files = tls(&home, "node-1", ["ours"; 3]);
        let files: Vec<_> = files.iter().map(String::as_str).collect();
        // The one without certificates ends first, so its last words are about a peer that still runs. The other's
        // log has the reason from the time when both did.
        let mut with_tls = node(&home, "node-1", ports[0], &[find.as_slice(), &["9s"], &files].concat());
        let without = [find.as_slice(), &["6s", "--peer-insecure"]].concat();
        let mut without = node(&home, "node-2", ports[1], &without);
        let (other, one) = std::thread::scope(|scope| {
            let one = scope.spawn(|| Server::spawn(&mut with_tls).err().expect("no cluster"));
            (Server::spawn(&mut without).err().expect("no cluster"), one.join().expect("it ends"))
        });
        assert!(one.stderr.contains("it does not speak TLS"), "{one:?}");
        assert!(other.stdout.contains("it may speak TLS, and this node runs without"), "{other:?}");
        let home = Home::new();
        let outside = ["--peer-listen", "0.0.0.0:0", "--advertise", "192.0.2.1:1", "--peer-insecure"];
        assert!(refused(&home, &outside).contains("loopback"));
        let nothing = refused(&home, &["--peer-listen", "127.0.0.1:0"]);
        assert!(nothing.contains("--peer-insecure") && nothing.contains("--peer-ca"), "{nothing}");
        started(&home, &["--peer-listen", "127.0.0.1:0", "--peer-insecure"]).stop();
    }

    force_new_cluster {
        let home = Home::new();
        let ports = [free_port(), free_port()];
        let join = format!("{},{}", ports[0], ports[1]);
        let servers = two(&home, ports, &["--peer-insecure", "--join", &join]);
        let before = status(&home, &servers[0])["cluster_id"].clone();
        make(&home, &servers[0], "kept");
        // Killed: the survivor may not know yet that what it has was acknowledged. With two voters it has all of it.
        drop(servers);
        let alone = |flags: &[&str]| Server::spawn(&mut node(&home, "node-1", ports[0], flags));
        let server = alone(&["--peer-insecure", "--force-new-cluster"]).expect("ready");
        let after = status(&home, &server);
        assert_ne!(after["cluster_id"], before);
        assert_eq!(after["members"].as_array().map(Vec::len), Some(1));
        at(&home, &server, &["ledger", "namespace", "show", "kept"]);
        make(&home, &server, "new");
    }

    rejoin {
        let home = Home::new();
        let ports = [free_port(), free_port()];
        let join = format!("{},{}", ports[0], ports[1]);
        let flags = ["--peer-insecure", "--join", &join];
        let mut servers = two(&home, ports, &flags);
        let out = ids(&servers)[1];
        at(&home, &servers[0], &["ledger", "cluster", "remove", "node-2"]);
        // Load balancers that ask by gRPC have to leave it.
        let health = ["health", servers[1].ready["ledger_url"].as_str().expect("a URL"), "--grpc"];
        eventually("it is not ready", || (home.run(&health).code == 7).then_some(()));
        servers.remove(1).stop();
        let start = |more: &[&str]| node(&home, "node-2", ports[1], &[flags.as_slice(), more].concat());
        // Whatever starts it again: an operator wanted it out.
        let unready = Unready::start(|probes| start(&["--bootstrap", "0", "--metrics", probes]));
        unready.awaits("it was taken out", "was taken out of its cluster");
        assert_eq!(role(&home, &servers[0], out), None);
        drop(unready);
        let back = together(vec![start(&["--rejoin"])]);
        assert_eq!(ids(&back), [out], "as the node that it was");
        eventually("it votes", || (role(&home, &servers[0], out).as_deref() == Some("voter")).then_some(()));
    }

    silent_after {
        let home = Home::new();
        let ports: Vec<SocketAddr> = (0..4).map(|_| free_port()).collect();
        let join = ports[..3].iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
        let shared = ["--peer-insecure", "--join", &join, "--voters-max", "3", "--silent-after", "6s"];
        let founders = (0..3).map(|n| node(&home, &format!("node-{}", n + 1), ports[n], &[shared.as_slice(), &["--bootstrap", "3"]].concat()));
        let mut servers = together(founders.collect());
        let spare = node(&home, "node-4", ports[3], &[shared.as_slice(), &["--bootstrap", "0"]].concat());
        servers.extend(together(vec![spare]));
        let ids = ids(&servers);
        eventually("the fourth is a learner", || (role(&home, &servers[3], ids[3]).as_deref() == Some("learner")).then_some(()));
        let silent = (0..3).find(|n| role(&home, &servers[3], ids[*n]).as_deref() == Some("voter")).expect("a follower");
        drop(servers.remove(silent));
        eventually("the learner votes in the place of the silent one", || {
            let asked = &servers[2];
            let roles = [role(&home, asked, ids[silent]), role(&home, asked, ids[3])];
            (roles == ["learner", "voter"].map(|role| Some(role.to_owned()))).then_some(())
        });
    }

    lease_reads {
        let home = Home::new();
        let ports = [free_port(), free_port()];
        let join = format!("{},{}", ports[0], ports[1]);
        let shared = ["--peer-insecure", "--join", &join];
        let reads = |servers: &[Server]| {
            let leader = status(&home, &servers[0])["leader_id"].clone();
            let leads = servers.iter().find(|server| server.ready["nodes"][0]["id"] == leader).expect("a leader");
            at(&home, leads, &["ledger", "get", "acme/prod", "door"])["value"].clone()
        };
        let by_lease = [shared.as_slice(), &["--lease-reads", "100ms"]].concat();
        let servers = two(&home, ports, &by_lease);
        at(&home, &servers[0], &["ledger", "namespace", "create", "acme"]);
        at(&home, &servers[0], &["ledger", "vault", "create", "acme/prod"]);
        for value in ["locked", "open"] {
            at(&home, &servers[1], &["ledger", "put", "acme/prod", "door", value]);
            assert_eq!(reads(&servers), value);
        }
        let refused = refused(&Home::new(), &["--peer-listen", "127.0.0.1:0", "--peer-insecure", "--lease-reads", "300ms"]);
        assert!(refused.contains("250ms"), "{refused}");
    }

    voters_max {
        let home = Home::new();
        let joined = |most: &str, first: &str, second: &str| {
            let ports = [free_port(), free_port()];
            let (join, insecure) = (ports[0].to_string(), ["--peer-insecure", "--voters-max", most]);
            let founder = together(vec![node(&home, first, ports[0], &[insecure.as_slice(), &["--bootstrap", "1"]].concat())]);
            let joins = [insecure.as_slice(), &["--bootstrap", "0", "--join", &join]].concat();
            let second = together(vec![node(&home, second, ports[1], &joins)]);
            let token = founder[0].ready["token_file"].as_str().expect("a token file").to_owned();
            (founder, second, token)
        };
        for (most, role, names) in [("1", "learner", ["a-1", "a-2"]), ("5", "voter", ["b-1", "b-2"])] {
            let (founder, second, token) = joined(most, names[0], names[1]);
            let id = ids(&second)[0];
            eventually("the joiner has its role", || {
                let command = ["ledger", "cluster", "status", "--url", founder[0].url(), "--token-file", &token];
                let status = home.json(&command);
                let members = status["members"].as_array().expect("a list").clone();
                members.iter().any(|member| member["id"] == id && member["role"] == role).then_some(())
            });
        }
    }
}
