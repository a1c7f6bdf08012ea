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
        filled += read;
        let now = clock.now();
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
            }
        }
        flush(stream.as_mut(), &mut output, limits).await?;
        meter.resp_batch(session.take_tally(), || clock.now().since(now));
        if next == Next::Close {
            return stream.shutdown().await;
        }
        if taken > 0 {
            input.copy_within(taken..filled, 0);
            filled -= taken;
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
