//! How far an import is, on standard error: a bar on a terminal, lines otherwise.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::output::Output;

const BAR_WIDTH: usize = 30;
const BAR_INTERVAL: Duration = Duration::from_millis(100);
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows progress.
pub struct Progress {
    form: Form,
    done: u64,
    total: u64,
    started: Instant,
    shown_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Bar,
    Lines,
    Silent,
}

impl Progress {
    /// Nothing is done of `total`.
    pub fn new(output: Output, total: u64) -> Self {
        let form = match (output.is_json(), std::io::stderr().is_terminal()) {
            (true, _) => Form::Silent,
            (false, true) => Form::Bar,
            (false, false) => Form::Lines,
        };
        Self { form, done: 0, total, started: Instant::now(), shown_at: None }
    }

    /// This many more are done.
    pub fn add(&mut self, count: usize) {
        self.done += count as u64;
        let interval = if self.form == Form::Bar { BAR_INTERVAL } else { LINE_INTERVAL };
        if self.shown_at.unwrap_or(self.started).elapsed() >= interval {
            self.show();
        }
    }

    /// Shows the end and leaves the line.
    pub fn finish(&mut self) {
        self.show();
        if self.form == Form::Bar {
            let _ = writeln!(std::io::stderr().lock());
        }
    }

    fn show(&mut self) {
        self.shown_at = Some(Instant::now());
        let percent = (self.done * 100).checked_div(self.total).unwrap_or(100);
        let rate = self.done as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        let mut stderr = std::io::stderr().lock();
        // Nobody may be looking any more; that is no failure of the import.
        let _ = match self.form {
            Form::Silent => Ok(()),
            Form::Lines => writeln!(stderr, "{} of {} ({percent} %), {rate:.0}/s", self.done, self.total),
            Form::Bar => {
                let filled = BAR_WIDTH * usize::try_from(percent.min(100)).unwrap_or(100) / 100;
                let bar = format!("{}{}", "#".repeat(filled), ".".repeat(BAR_WIDTH - filled));
                write!(stderr, "\r[{bar}] {percent:>3} %  {} of {}  {rate:.0}/s ", self.done, self.total)
                    .and_then(|()| stderr.flush())
            }
        };
    }
}
