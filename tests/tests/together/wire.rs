//! [`Wire`]: what is between a machine and the server, and can be cut without a word: both ends stay connected, and
//! nothing arrives any more.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A relay of bytes on a port of its own.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    clients: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_cut = Arc::new(AtomicBool::new(false));
        let (cut, clients) = (is_cut.clone(), Arc::<Mutex<Vec<TcpStream>>>::default());
        let all = clients.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(upstream) = TcpStream::connect(server) else { continue };
                all.lock().unwrap().push(client.try_clone().unwrap());
                let both = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                let (there, back) = (cut.clone(), cut.clone());
                std::thread::spawn(move || relay(client, upstream, &there));
                std::thread::spawn(move || relay(both.1, both.0, &back));
            }
        });
        Self { address, is_cut, clients }
    }

    /// Ends all connections there are, and takes new ones, like a proxy that is started anew.
    pub(crate) fn hang_up(&self) {
        for client in self.clients.lock().unwrap().drain(..) {
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
    }

    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }
}

/// Hands bytes on until one end is closed. After the cut nothing is handed on, the end neither.
fn relay(mut from: TcpStream, mut to: TcpStream, is_cut: &AtomicBool) {
    let mut bytes = [0; 4096];
    loop {
        let count = from.read(&mut bytes).unwrap_or(0);
        if is_cut.load(Ordering::Relaxed) {
            // Kept open for as long as the test runs.
            std::mem::forget((from, to));
            return;
        }
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            let _ = to.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}
