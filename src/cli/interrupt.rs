//! Ctrl-C and SIGTERM. The first one ends a job in order, so that everything that is measured is
//! kept. A second one ends the program at once. SIGHUP is left alone, because `nohup` ignores it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::study::Cancel;

/// The program's exit code after an interruption.
pub(super) const CODE: u8 = 130;

/// Interval at which the signals' flag is looked at.
const POLL: Duration = Duration::from_millis(30);

/// A receiver that is ready as soon as the user wants the command to end.
pub(super) fn receiver() -> Receiver<()> {
    let (to, asked) = bounded(1);
    let raised = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the signal that raises the flag must not end the program. Where the
        // system refuses a handler, the signal ends the program at once, as without a handler.
        flag::register_conditional_shutdown(signal, CODE.into(), raised.clone()).ok();
        flag::register(signal, raised.clone()).ok();
    }
    let watch = move || {
        while !raised.load(Ordering::Relaxed) {
            std::thread::sleep(POLL);
        }
        note!("ending after keeping what is done; once more ends at once");
        to.send(()).ok();
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).ok();
    asked
}

/// A token that the first signal cancels.
pub(super) fn cancel() -> Cancel {
    let (cancel, asked) = (Cancel::default(), receiver());
    let shared = cancel.clone();
    let watch = move || {
        if asked.recv().is_ok() {
            shared.cancel();
        }
    };
    std::thread::Builder::new().name("interruption".into()).spawn(watch).ok();
    cancel
}
