//! The accept loop survives a process without free descriptors (RUSTSEC-2024-0376). It lowers this process' own limit,
//! so it is a program of its own with one test.

use std::fs::File;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use service_kit::metrics::MetricsHandle;
use service_kit::tls::Protocol;
use service_kit::{Listener, ListenerLimits};
use tokio::net::TcpSocket;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepting_goes_on_after_the_process_ran_out_of_descriptors() {
    let metrics = MetricsHandle::install().expect("the only installation");
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(128), maximum }).expect("a lower limit");
    let address = "127.0.0.1:0".parse().expect("an address");
    let limits = ListenerLimits::default();
    let listener =
        Listener::bind("starved", address, Protocol::Http2, None, &limits).await.expect("a free port");
    let address = listener.local_address();
    let mut connections = listener.accept();

    // The client's descriptor exists before the last one is taken.
    let client = TcpSocket::new_v4().expect("a socket");
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    let _client = client.connect(address).await.expect("the kernel's backlog accepts");
    let failed = async {
        while !metrics.render().contains("strongroom_accept_errors_total{listener=\"starved\"}") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), failed)
        .await
        .expect("accept fails for want of a descriptor");
    drop(taken);
    let connection = tokio::time::timeout(Duration::from_secs(20), connections.next()).await;
    assert!(connection.expect("accepting goes on").is_some());
}
