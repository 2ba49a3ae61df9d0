//! [`Interrupt`]: signals that would end this process end its child's process group instead, so that
//! the command can clean up behind it.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};

/// Catches the signals for the rest of this process.
#[derive(Debug, Clone)]
pub(super) struct Interrupt(Arc<State>);

#[derive(Debug, Default)]
struct State {
    came: AtomicBool,
    /// The process group that ends with this process; 0: none.
    group: AtomicI32,
}

impl State {
    fn pass_on(&self) {
        if let Some(group) = Pid::from_raw(self.group.load(Ordering::SeqCst)) {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}

impl Interrupt {
    /// Catches interrupt, termination and hang-up from now on.
    ///
    /// # Errors
    /// When the system does not let it.
    pub(super) fn catch() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let state = Arc::new(State::default());
        let (mut interrupt, mut terminate, mut hangup) = {
            let _entered = runtime.enter();
            let catch = |kind| signal(kind);
            (
                catch(SignalKind::interrupt())?,
                catch(SignalKind::terminate())?,
                catch(SignalKind::hangup())?,
            )
        };
        let shared = state.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        _ = hangup.recv() => {}
                    }
                    shared.came.store(true, Ordering::SeqCst);
                    shared.pass_on();
                }
            });
        });
        Ok(Self(state))
    }

    /// Whether a signal came.
    pub(super) fn came(&self) -> bool {
        self.0.came.load(Ordering::SeqCst)
    }

    /// Waits for the end of a child that leads a process group; a signal ends the group.
    ///
    /// # Errors
    /// What waiting fails with.
    pub(super) fn wait(&self, mut child: Child) -> io::Result<ExitStatus> {
        self.0.group.store(i32::try_from(child.id()).unwrap_or(0), Ordering::SeqCst);
        if self.came() {
            self.0.pass_on();
        }
        let status = child.wait();
        self.0.group.store(0, Ordering::SeqCst);
        status
    }
}
