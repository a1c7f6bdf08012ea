//! Bytes in, bytes out.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};
use tower_layers::rate_limit::Clock;

use super::reply::{Replies, Version};
use super::request::{Parsed, REQUEST_BYTES_MAX, parse};
use super::session::{Next, Session};
use crate::meter::Meter;

/// What is read at once, and so what can be answered with one write: more than a request, so that it always has room.
const INPUT_BYTES: usize = 2 * REQUEST_BYTES_MAX;
/// Answers that are sent before more is decoded: as many small requests as the input can hold.
const OUTPUT_BYTES: usize = 64 << 10;

/// How long a connection may keep us waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RespLimits {
    /// Between two requests. 5 min: pools keep connections open.
    pub idle: Duration,
    /// For a request of which a part has come. 10 s.
    pub request: Duration,
    /// For a client to take its answers. 10 s.
    pub write: Duration,
}

impl Default for RespLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(300),
            request: Duration::from_secs(10),
            write: Duration::from_secs(10),
        }
    }
}

/// Answers until the client goes, breaks the protocol, keeps us waiting, or `closing` completes: then what has arrived
/// whole is still answered.
pub(super) async fn converse(
    stream: impl AsyncRead + AsyncWrite,
    mut session: Session<'_>,
    (limits, clock, meter): (RespLimits, &dyn Clock, &Meter),
    closing: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut stream = std::pin::pin!(stream);
    let mut closing = std::pin::pin!(closing);
    let mut input = vec![0; INPUT_BYTES];
    let mut output = Vec::with_capacity(1 << 10);
    let mut filled = 0;
    // Moved only when it rings: most requests come before, and setting a timer for each would cost as much as deciding.
    let mut alarm = std::pin::pin!(sleep_until(Instant::now() + limits.request.min(limits.idle)));
    let mut heard = Instant::now();
    loop {
        let room = input.get_mut(filled..).unwrap_or_default();
        let read = tokio::select! {
            biased;
            read = stream.read(room) => read?,
            () = &mut closing => return Ok(()),
            () = &mut alarm => {
                let patience = if filled > 0 { limits.request } else { limits.idle };
                if heard.elapsed() >= patience {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                alarm.as_mut().reset(Instant::now() + limits.request.min(limits.idle));
                continue;
            }
        };
        if read == 0 {
            return Ok(());
        }
        let is_first = filled == 0;
        filled += read;
        let began = clock.now();
        let mut now = began;
        let mut taken = 0;
        let mut next = Next::Continue;
        while next == Next::Continue {
            let waiting = input.get(taken..filled).unwrap_or_default();
            match parse(waiting) {
                Ok(Parsed::Incomplete) => break,
                Ok(Parsed::Request { arguments, bytes }) => {
                    taken += bytes;
                    next = session.answer(&arguments, now, &mut output);
                }
                Err(error) => {
                    Replies::new(&mut output, Version::Resp2).error(&error.to_string());
                    meter.resp_broken();
                    next = Next::Close;
                }
            }
            if output.len() >= OUTPUT_BYTES {
                flush(stream.as_mut(), &mut output, limits).await?;
                // The client may have taken its time.
                now = clock.now();
            }
        }
        flush(stream.as_mut(), &mut output, limits).await?;
        meter.resp_batch(session.take_tally(), || clock.now().since(began));
        if next == Next::Close {
            return stream.shutdown().await;
        }
        if taken > 0 {
            input.copy_within(taken..filled, 0);
            filled -= taken;
        }
        // The time for a request begins with its first byte, not with the end of the one before.
        if taken > 0 || is_first {
            heard = Instant::now();
        }
    }
}

async fn flush(
    mut stream: std::pin::Pin<&mut impl AsyncWrite>,
    output: &mut Vec<u8>,
    limits: RespLimits,
) -> io::Result<()> {
    if output.is_empty() {
        return Ok(());
    }
    match timeout(limits.write, stream.write_all(output)).await {
        Ok(written) => written?,
        Err(_) => return Err(io::ErrorKind::TimedOut.into()),
    }
    output.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use ratelimit_core::{AdHoc, HashSecret, Nanos, TableSize};
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::access::Access;

    /// Moved by the test alone.
    struct TestClock(AtomicU64);

    impl Clock for TestClock {
        fn now(&self) -> Nanos {
            Nanos(self.0.load(Ordering::SeqCst))
        }

        fn unix_seconds(&self) -> u64 {
            0
        }
    }

    /// A conversation over a pipe that holds so much, and the client's part in it.
    async fn talk<T>(pipe_bytes: usize, client: impl AsyncFnOnce(DuplexStream, &TestClock) -> T) -> T {
        let keys = AdHoc::new(TableSize::for_keys(100), HashSecret([7; 16])).expect("memory");
        let (access, clock, meter) = (Access::default(), TestClock(AtomicU64::new(1)), Meter::new());
        let (near, far) = duplex(pipe_bytes);
        let session = Session::new(&keys, &access, 1);
        let limits = RespLimits { request: Duration::from_millis(600), ..RespLimits::default() };
        let settings = (limits, &clock as &dyn Clock, &meter);
        let serving = converse(far, session, settings, std::future::pending());
        let (_, said) = tokio::join!(serving, client(near, &clock));
        said
    }

    /// All requests of a batch were decided as of when it was read, though each flush may wait for the client for seconds.
    #[tokio::test]
    async fn what_is_decided_after_a_flush_is_decided_as_of_then() {
        let throttle = "CL.THROTTLE k 0 1 60\r\n";
        let request = [throttle, &"COMMAND\r\n".repeat(600), throttle].concat();
        let answer = talk(request.len(), async |mut client, clock| {
            client.write_all(request.as_bytes()).await.expect("sent");
            let mut first = [0; 4];
            client.read_exact(&mut first).await.expect("received");
            clock.0.fetch_add(120_000_000_000, Ordering::SeqCst);
            client.shutdown().await.expect("shut");
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.expect("received");
            String::from_utf8(rest).expect("text")
        })
        .await;
        assert!(answer.len() > OUTPUT_BYTES, "{}", answer.len());
        assert!(
            answer.ends_with("*5\r\n:0\r\n:1\r\n:0\r\n:-1\r\n:60\r\n"),
            "{:?}",
            &answer[answer.len() - 60..]
        );
    }

    /// The time for a request was counted from the end of the one before: a pool's connection that had been quiet was closed when
    /// its next request came in two segments.
    #[tokio::test]
    async fn a_request_in_two_parts_after_a_long_silence_is_answered() {
        let answer = talk(1_024, async |mut client, _| {
            tokio::time::sleep(Duration::from_millis(900)).await;
            client.write_all(b"PI").await.expect("sent");
            tokio::time::sleep(Duration::from_millis(400)).await;
            client.write_all(b"NG\r\n").await.expect("sent");
            let mut answer = [0; 7];
            client.read_exact(&mut answer).await.map(|_| answer)
        })
        .await;
        assert_eq!(&answer.expect("an answer"), b"+PONG\r\n");
    }
}
