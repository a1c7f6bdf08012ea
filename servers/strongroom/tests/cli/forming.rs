//! Clusters that form, grow, shrink and start anew, out of nodes that are started as an operator starts them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster_settings::{node, together, token};
use crate::harness::{Home, Said, Server, eventually, free_ports};
use crate::name_server::NameServer;
use crate::unready::Unready;

/// A node to start: its name, and its address for peers.
pub struct Node {
    pub name: &'static str,
    pub peer_address: SocketAddr,
}

impl Node {
    pub fn three() -> [Self; 3] {
        let [a, b, c] = free_ports();
        [("node-1", a), ("node-2", b), ("node-3", c)].map(|(name, port)| Self::at(name, port))
    }

    fn at(name: &'static str, port: u16) -> Self {
        Self { name, peer_address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// The whole command line, but for how it finds the others.
    fn command(&self, home: &Home, more: &[&str]) -> std::process::Command {
        node(home, self.name, self.peer_address, &[&["--peer-insecure"], more].concat())
    }

    pub fn start(&self, home: &Home, more: &[&str]) -> Server {
        self.try_start(home, more).unwrap_or_else(|said| panic!("{}: {said:?}", self.name))
    }

    pub fn try_start(&self, home: &Home, more: &[&str]) -> Result<Server, Said> {
        Server::spawn(&mut self.command(home, more))
    }
}

pub fn addresses(nodes: &[Node]) -> String {
    nodes.iter().map(|node| node.peer_address.to_string()).collect::<Vec<_>>().join(",")
}

/// Starts nodes that wait for each other.
pub fn start_together<const N: usize>(home: &Home, nodes: &[Node; N], more: &[&str]) -> [Server; N] {
    let servers = together(nodes.iter().map(|node| node.command(home, more)).collect());
    servers.try_into().unwrap_or_else(|_| panic!("one server for each node"))
}

/// An operator, who knows some nodes and has the administrator's token.
pub struct Operator<'a> {
    pub home: &'a Home,
    pub urls: String,
    pub token_file: String,
}

impl<'a> Operator<'a> {
    pub fn of(home: &'a Home, servers: &[Server]) -> Self {
        let urls: Vec<_> = servers.iter().map(Server::url).collect();
        Self { home, urls: urls.join(","), token_file: token(home) }
    }

    /// The same, who talks to one node only.
    pub fn at(&self, server: &Server) -> Self {
        Self { home: self.home, urls: server.url().to_owned(), token_file: self.token_file.clone() }
    }

    pub fn arguments<'b>(&'b self, arguments: &[&'b str]) -> Vec<&'b str> {
        [&["ledger"], arguments, &["--url", &self.urls, "--token-file", &self.token_file]].concat()
    }

    pub fn does(&self, arguments: &[&str]) -> Value {
        self.home.json(&self.arguments(arguments))
    }

    pub fn status(&self) -> Value {
        self.does(&["cluster", "status"])
    }

    /// As [`Home::persists`].
    fn persists(&self, arguments: &[&str], done: &str) -> Option<Value> {
        self.home.persists(&self.arguments(arguments), done)
    }

    pub fn makes_vault(&self) {
        self.persists(&["namespace", "create", "acme"], "NAMESPACE_EXISTS");
        self.persists(&["vault", "create", "acme/prod"], "VAULT_EXISTS");
    }

    /// A change that says it has removed somebody, or else it had happened before its answer was lost.
    fn removes(&self, arguments: &[&str], done: &str) {
        if let Some(change) = self.persists(arguments, done) {
            assert_eq!(change["change"], "removed");
        }
    }

    /// Every one of these nodes knows at once what was acknowledged by another.
    fn shows_vault_at_each(&self, servers: &[Server]) {
        for server in servers {
            let at = self.at(server);
            assert_eq!(at.does(&["vault", "show", "acme/prod"])["vault"], "acme/prod");
            assert_eq!(at.does(&["namespace", "show", "acme"])["name"], "acme");
        }
    }

    pub fn puts(&self, value: &str) {
        self.does(&["put", "acme/prod", "door", value]);
    }

    pub fn gets(&self) -> String {
        let said = self.home.run(&self.arguments(&["get", "acme/prod", "door", "--verify"]));
        assert_eq!(said.code, 0, "{said:?}");
        said.stdout
    }

    /// Waits until exactly these members are there and vote.
    pub fn awaits_voters(&self, names: &[&str]) -> Value {
        let expected: BTreeSet<_> = names.iter().copied().collect();
        eventually(&format!("{names:?} vote"), || {
            let status = self.status();
            let votes = |member: &&Value| matches!(member["role"].as_str(), Some("leader" | "voter"));
            let voters = members(&status).iter().filter(votes);
            let voters: BTreeSet<_> = voters.filter_map(|member| member["name"].as_str()).collect();
            let are_all = voters == expected && members(&status).len() == expected.len();
            (are_all && !status["leader_id"].is_null()).then(|| status.clone())
        })
    }
}

pub fn members(status: &Value) -> &[Value] {
    status["members"].as_array().expect("a list")
}

/// All belong to one ledger, with one key and one cluster id, and each knows the same three voters.
fn assert_one_cluster(home: &Home, servers: &[Server]) -> String {
    let operator = Operator::of(home, servers);
    let status = operator.awaits_voters(&["node-1", "node-2", "node-3"]);
    let cluster_id = status["cluster_id"].as_str().expect("a cluster id").to_owned();
    for server in servers {
        assert_eq!(server.ready["vkey"], servers[0].ready["vkey"]);
        assert_eq!(operator.at(server).status()["cluster_id"], cluster_id, "{}", server.ready);
    }
    let ids: BTreeSet<_> = servers.iter().map(|server| server.ready["nodes"][0]["id"].as_u64()).collect();
    assert_eq!(ids.len(), servers.len());
    cluster_id
}

#[test]
fn nodes_that_know_addresses_form_one_cluster_which_grows_moves_its_lead_and_shrinks() {
    let home = Home::new();
    let nodes = Node::three();
    let known = addresses(&nodes);
    let servers = start_together(&home, &nodes, &["--bootstrap", "3", "--join", &known]);
    let cluster_id = assert_one_cluster(&home, &servers);
    let operator = Operator::of(&home, &servers);
    operator.makes_vault();
    operator.shows_vault_at_each(&servers);
    operator.puts("locked");

    let [port] = free_ports();
    let fourth = Node::at("node-4", port);
    let fourth = fourth.start(&home, &["--bootstrap", "0", "--join", &nodes[2].peer_address.to_string()]);
    assert_eq!(fourth.ready["vkey"], servers[0].ready["vkey"]);
    let status = operator.awaits_voters(&["node-1", "node-2", "node-3", "node-4"]);
    assert_eq!(status["cluster_id"], cluster_id);
    assert_eq!(operator.at(&fourth).gets(), "locked", "any node takes any request");

    let moved = operator.persists(&["cluster", "transfer", "node-4"], "-").expect("an answer");
    assert_eq!(moved["leader_id"], fourth.ready["nodes"][0]["id"]);
    // Whoever is asked next may hear of it a moment later.
    eventually("all hear of it", || (operator.status()["leader_id"] == moved["leader_id"]).then_some(()));
    operator.puts("open");

    operator.removes(&["cluster", "remove", "node-2"], "UNKNOWN_NODE");
    operator.awaits_voters(&["node-1", "node-3", "node-4"]);
    // The leader itself leaves, and hands over.
    operator.at(&fourth).removes(&["cluster", "leave"], "UNKNOWN_NODE");
    operator.awaits_voters(&["node-1", "node-3"]);
    operator.puts("ajar");
    assert_eq!(operator.gets(), "ajar");
}

#[test]
fn a_file_of_peers_forms_a_cluster_and_a_file_that_is_missing_is_written() {
    let home = Home::new();
    let nodes = Node::three();
    let peers: Vec<_> =
        nodes.iter().map(|node| serde_json::json!({ "addr": node.peer_address.to_string() })).collect();
    let by_hand = serde_json::json!({ "cached_at": 0, "peers": peers }).to_string();
    let file = home.write("peers.cache", &by_hand);
    let servers = start_together(&home, &nodes, &["--bootstrap", "3", "--join", &file]);
    let cluster_id = assert_one_cluster(&home, &servers);

    let [port] = free_ports();
    let fourth = Node::at("node-4", port);
    let own = home.path("own.cache").display().to_string();
    let join = format!("{},{own}", nodes[1].peer_address);
    let server = fourth.start(&home, &["--bootstrap", "0", "--join", &join]);
    eventually("the members are remembered", || {
        let text = std::fs::read_to_string(&own).ok()?;
        let cache: Value = serde_json::from_str(&text).expect("JSON");
        let peers = cache["peers"].as_array().expect("a list");
        let known: BTreeSet<_> =
            peers.iter().map(|peer| peer["addr"].as_str().expect("text").to_owned()).collect();
        nodes.iter().all(|node| known.contains(&node.peer_address.to_string())).then_some(())
    });
    server.stop();
    // What it wrote is enough to come back.
    let back = fourth.start(&home, &["--join", &own]);
    assert_eq!(Operator::of(&home, &servers).at(&back).status()["cluster_id"], cluster_id);
}

#[test]
fn nodes_find_each_other_by_a_dns_name() {
    let home = Home::new();
    // A name has addresses and no ports: every node has the same, as on machines of their own.
    let [port] = free_ports();
    let hosts = [[127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]];
    let mut names = ["node-1", "node-2", "node-3"].into_iter();
    let nodes = hosts.map(|host| Node {
        name: names.next().expect("a name for each"),
        peer_address: SocketAddr::from((host, port)),
    });
    let resolver = NameServer::knowing("ledger.example.com", hosts.map(IpAddr::from).to_vec());
    let (name, address) = (format!("ledger.example.com:{port}"), resolver.address.to_string());
    let find = ["--bootstrap", "3", "--discovery", &name, "--discovery-resolver", &address];
    let servers = start_together(&home, &nodes, &find);
    assert_one_cluster(&home, &servers);
    let operator = Operator::of(&home, &servers);
    operator.makes_vault();
    operator.puts("locked");
    assert_eq!(operator.gets(), "locked");
}

#[test]
fn nodes_that_wait_for_more_than_there_are_say_so_and_found_nothing() {
    let home = Home::new();
    let nodes = Node::three();
    let known = addresses(&nodes);
    let wait = ["--bootstrap", "3", "--join", &known, "--bootstrap-timeout", "2s"];
    let said: Vec<_> = std::thread::scope(|scope| {
        let starting = nodes[..2].iter().map(|node| scope.spawn(|| node.try_start(&home, &wait).err()));
        let starting: Vec<_> = starting.collect();
        starting.into_iter().map(|starting| starting.join().expect("it ends")).collect()
    });
    for said in said {
        let said = said.expect("two are no three");
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stdout.contains("\"ready\":false"), "{said:?}");
    }
    // Nothing was decided: with the third they form the cluster.
    let servers = start_together(&home, &nodes, &["--bootstrap", "3", "--join", &known]);
    assert_one_cluster(&home, &servers);
}

#[test]
fn a_node_that_waits_for_its_cluster_refuses_calls_at_once_and_says_what_it_waits_for() {
    let home = Home::new();
    let [own, nobody, listen] = free_ports();
    let (nobody, url) = (format!("127.0.0.1:{nobody}"), format!("http://127.0.0.1:{listen}"));
    let address = format!("127.0.0.1:{listen}");
    let token = home.write("any.token", format!("sr_0123456789abcdef_{}\n", "A".repeat(43)));
    let read = ["ledger", "get", "acme/prod", "door", "--url", &url, "--token-file", &token];
    for (bootstrap, waits_for) in
        [("0", "belongs to a cluster that it could join"), ("3", "no usable answer yet")]
    {
        let data = home.path(bootstrap).display().to_string();
        let waiting = Unready::start(|probes| {
            let peers = ["--peer-listen", &format!("127.0.0.1:{own}"), "--peer-insecure", "--join", &nobody];
            let serve = ["ledger", "serve", "--data", &data, "--listen", &address, "--metrics", probes];
            home.command(&[serve.as_slice(), &peers, &["--bootstrap", bootstrap]].concat())
        });
        let body = waiting.awaits("it says what it waits for", waits_for);
        assert!(body.contains(&nobody), "{body}");
        let began = Instant::now();
        let refused = home.refusal(7, &read);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let message = refused["message"].as_str().expect("a message");
        assert!(message.contains("does not serve yet") && message.contains(waits_for), "{message}");
    }
}

#[test]
fn the_last_node_of_a_lost_cluster_goes_on_under_a_new_id_and_others_join_it() {
    let home = Home::new();
    let nodes = Node::three();
    let known = addresses(&nodes);
    let servers = start_together(&home, &nodes, &["--bootstrap", "3", "--join", &known]);
    let lost_id = assert_one_cluster(&home, &servers);
    let operator = Operator::of(&home, &servers);
    operator.makes_vault();
    operator.puts("locked");
    // A copy elsewhere: the node that had the file may be one of the lost.
    let token = std::fs::read_to_string(&operator.token_file).expect("readable");
    let token_file = home.write("kept.token", token);
    // The last node must have what was acknowledged.
    assert_eq!(operator.at(&servers[2]).gets(), "locked");
    let [first, second, last] = servers;
    for (mut lost, name) in [(first, "node-1"), (second, "node-2")] {
        lost.child.kill().expect("killed");
        lost.child.wait().expect("it ends");
        std::fs::remove_dir_all(home.path(name)).expect("lost");
    }
    // Alone it decides nothing, and ends all the same.
    last.stop();

    let alone = nodes[2].try_start(&home, &["--bootstrap", "1"]).err().expect("it belongs to a cluster");
    assert_eq!(alone.code, 1);
    assert!(alone.stdout.contains("--force-new-cluster"), "{alone:?}");
    let forced = nodes[2].start(&home, &["--force-new-cluster"]);
    let operator = Operator { home: &home, urls: forced.url().to_owned(), token_file };
    let status = operator.awaits_voters(&["node-3"]);
    assert_ne!(status["cluster_id"], lost_id);
    assert_eq!(operator.gets(), "locked");
    operator.puts("open");

    let joined = nodes[0].start(&home, &["--bootstrap", "0", "--join", &nodes[2].peer_address.to_string()]);
    let now = operator.awaits_voters(&["node-1", "node-3"]);
    assert_eq!(now["cluster_id"], status["cluster_id"]);
    assert_eq!(operator.at(&joined).gets(), "open");
}
