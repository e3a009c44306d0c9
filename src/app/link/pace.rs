//! Measures how smooth the window is. With `DITSCOPE_PACE` set, the window prints on stderr once a
//! second how many frames it drew and the longest time between two of them, and how long the engine
//! took to answer. `DITSCOPE_PACE=continuous` also draws without pause, which shows how many frames
//! there could be.

use std::time::{Duration, Instant};

/// Counts frames of the window.
#[derive(Debug, Default)]
pub struct Pace {
    on: bool,
    /// Draw without pause.
    pub continuous: bool,
    since: Option<Instant>,
    last: Option<Instant>,
    frames: u32,
    longest: Duration,
    asked: Option<(&'static str, Instant)>,
}

impl Pace {
    /// One that counts if the environment asks for it.
    pub fn from_environment() -> Self {
        let value = std::env::var_os("DITSCOPE_PACE").unwrap_or_default();
        Self { on: !value.is_empty(), continuous: value == "continuous", ..Self::default() }
    }

    /// A frame is drawn now.
    pub fn frame(&mut self, now: Instant, busy: bool) {
        if let Some(line) = self.count(now, busy).filter(|_| self.on) {
            tell(format_args!("{line}"));
        }
    }

    fn count(&mut self, now: Instant, busy: bool) -> Option<String> {
        let since = *self.since.get_or_insert(now);
        let mut line = None;
        let passed = now.duration_since(since);
        if passed >= Duration::from_secs(1) {
            let (frames, longest) = (self.frames, self.longest.as_millis());
            let doing = if busy { "a job runs" } else { "no job" };
            line =
                Some(format!("pace: {frames} frames in {:.2} s, {longest} ms at most, {doing}", passed.as_secs_f64()));
            (self.since, self.frames, self.longest) = (Some(now), 0, Duration::ZERO);
        }
        self.frames += 1;
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(now.duration_since(last));
        }
        line
    }

    /// Something is asked of the engine.
    pub fn ask(&mut self, what: &'static str) {
        self.asked = Some((what, Instant::now()));
    }

    /// The engine has answered.
    pub fn answered(&mut self) {
        if let Some((what, since)) = self.asked.take().filter(|_| self.on) {
            tell(format_args!("pace: {what} answered after {} ms", since.elapsed().as_millis()));
        }
    }
}

/// Prints a line to the standard error, if anybody reads it.
fn tell(line: std::fmt::Arguments) {
    use std::io::Write;
    writeln!(std::io::stderr().lock(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_by_the_second() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert!([0, 100, 400, 900].into_iter().all(|ms| pace.count(at(ms), false).is_none()));
        let line = pace.count(at(1100), true).unwrap();
        assert!(line.contains("4 frames in 1.10 s, 500 ms at most, a job runs"), "{line}");
    }
}
