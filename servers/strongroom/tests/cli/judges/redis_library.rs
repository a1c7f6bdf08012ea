//! The Python library `redis`, under both versions of the protocol.

use std::process::Command;

use super::program::python_with;
use super::{address, limits, per_client};
use crate::harness::{Home, Said};

/// Prints one line for each claim.
const CLIENT: &str = r#"
import sys, threading
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

port, password = int(sys.argv[1]), sys.argv[2]

def throttle(client, *arguments):
    return client.execute_command("CL.THROTTLE", *arguments)

for protocol in (2, 3):
    client = redis.Redis(port=port, password=password, protocol=protocol)
    assert client.ping() is True
    key = f"user:{protocol}"
    print([throttle(client, key, 2, 1, 3600) for _ in range(4)])
    print(throttle(client, key, 2, 1, 3600, 0)[:3])
    pipeline = client.pipeline(transaction=False)
    for _ in range(16):
        throttle(pipeline, f"pipe:{protocol}", 9, 1, 3600)
    print(sum(reply[0] == 0 for reply in pipeline.execute()))

client = redis.Redis(port=port, password=password, max_connections=16)
replies = []
work = lambda: replies.extend(throttle(client, "crowd", 99, 1, 3600)[0] for _ in range(30))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(replies), replies.count(0))

for wrong in (("k", "x", 1, 60), ("k", 1, 0, 60), ("k",)):
    try:
        throttle(client, *wrong)
        print("no error")
    except redis.ResponseError as error:
        print("error")
try:
    redis.Redis(port=port, password="wrong", retry=Retry(NoBackoff(), 0)).ping()
    print("no error")
except redis.AuthenticationError:
    print("refused")
"#;

#[test]
fn a_redis_library_gets_exactly_what_a_limit_has_also_from_eight_threads() {
    let Some(python) = python_with("redis") else { return };
    let home = Home::new();
    let token = home.write("token", "of-checks\n");
    let server = limits(&home, &per_client(), &["--token-file", &token]);
    let port = address(&server, "resp_addr").port().to_string();
    let said = Said::of(Command::new(python).args(["-c", CLIENT, &port, "of-checks"]));
    assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    let lines: Vec<&str> = said.stdout.lines().collect();
    for of_protocol in lines[..6].chunks(3) {
        // limited, limit, remaining, retry after, reset after
        let (first, allowed) = (of_protocol[0], "[[0, 3, 2, -1, 3600], [0, 3, 1, -1, ");
        assert!(first.starts_with(allowed) && first.contains("], [1, 3, 0, "), "{first}");
        assert_eq!(
            of_protocol[1], "[0, 3, 0]",
            "looking takes nothing, so it is allowed where nothing is left"
        );
        assert_eq!(of_protocol[2], "10", "of sixteen in a pipeline");
    }
    assert_eq!(lines[6..], ["240 100", "error", "error", "error", "refused"]);
    server.stop();
}
