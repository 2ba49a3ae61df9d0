//! Clients that ask and do not take the answer: after [`ANSWER_STALL`] without a byte taken their connection ends, so
//! that nobody makes a server keep answers by asking alone.
//!
//! [`Patient`] sees that nothing can be written to a connection. By HTTP/2 a client can take bytes of a connection and
//! none of an answer: [`Answers`] sees that no more of one is asked for. Called by [`super::connection`] and
//! [`super::h2`].

use std::collections::HashMap;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::limits::ANSWER_STALL;

/// A stream on which a write waits for so long and no longer.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    /// The end of the wait, where a write waits.
    ends: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, ends: None }
    }

    fn wait<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.ends = None;
            return done;
        }
        let ends = self.ends.get_or_insert_with(|| Box::pin(sleep(ANSWER_STALL)));
        ready!(ends.as_mut().poll(cx));
        self.ends = None;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no answer")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wait(cx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.wait(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(cx);
        self.wait(cx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.wait(cx, done)
    }
}

/// The answers of a connection that are being sent, with when more of them was asked for last.
#[derive(Debug, Default)]
pub(super) struct Answers {
    state: Mutex<(u64, HashMap<u64, Instant>)>,
}

/// One of them, until it is sent.
#[derive(Debug)]
pub(super) struct Answer {
    answers: Arc<Answers>,
    number: u64,
}

impl Answers {
    pub(super) fn begin(self: &Arc<Self>) -> Answer {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        let number = state.0;
        state.1.insert(number, Instant::now());
        Answer { answers: self.clone(), number }
    }

    /// When one of them has stalled.
    pub(super) async fn stalled(&self) {
        loop {
            let oldest = {
                let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.1.values().min().copied()
            };
            let waited = oldest.map_or(Duration::ZERO, |at| at.elapsed());
            if waited >= ANSWER_STALL {
                return;
            }
            sleep(ANSWER_STALL.saturating_sub(waited)).await;
        }
    }
}

impl Answer {
    /// More of it is asked for.
    pub(super) fn goes_on(&self) {
        let mut state = self.answers.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.insert(self.number, Instant::now());
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut state = self.answers.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_waited_for_so_long() {
        let (here, mut there) = duplex(4);
        let (mut here, begun) = (Patient::new(here), Instant::now());
        here.write_all(b"1234").await.unwrap();
        let error = here.write_all(b"5").await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, ANSWER_STALL));
        // Who takes a little now and then is not hung up on.
        let reads = async {
            for _ in 0..4 {
                sleep(ANSWER_STALL * 3 / 4).await;
                there.read_u8().await.unwrap();
            }
        };
        let (wrote, ()) = tokio::join!(here.write_all(b"5678"), reads);
        wrote.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_which_no_more_is_asked_for_has_stalled() {
        let (answers, begun) = (Arc::<Answers>::default(), Instant::now());
        let (first, second) = (answers.begin(), answers.begin());
        let work = async {
            for _ in 0..4 {
                sleep(ANSWER_STALL * 3 / 4).await;
                first.goes_on();
                second.goes_on();
            }
            drop(first);
        };
        tokio::select! {
            () = answers.stalled() => panic!("after {:?}", begun.elapsed()),
            () = work => {}
        }
        answers.stalled().await;
        assert!(begun.elapsed() >= ANSWER_STALL * 4);
        drop(second);
    }
}
