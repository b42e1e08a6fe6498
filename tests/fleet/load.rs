//! A small reverse proxy before the hosts, and clients that ask it all the time.

use crate::world::World;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A reverse proxy: each request goes to one of the hosts in turn, and to the next one if that one does not take it.
pub struct Proxy {
    port: u16,
}

impl Proxy {
    pub fn new(world: &World) -> Self {
        let backends: Vec<String> = world.hosts.iter().map(|host| host.address.clone()).collect();
        let backends = Arc::new(backends);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for (turn, stream) in listener.incoming().flatten().enumerate() {
                let backends = Arc::clone(&backends);
                std::thread::spawn(move || pass_on(stream, &backends, turn));
            }
        });
        Self { port }
    }

    /// The answer to one request; an error where it is not a whole one of status 200.
    pub fn get(&self) -> io::Result<String> {
        ask("127.0.0.1", self.port)
    }
}

fn pass_on(mut client: TcpStream, backends: &[String], turn: usize) -> io::Result<()> {
    let _ = client.read(&mut [0; 4096])?;
    let mut answers = (0..backends.len()).filter_map(|n| ask(&backends[(turn + n) % backends.len()], 8000).ok());
    match answers.next() {
        Some(body) => write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        None => write!(client, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
    }
}

fn ask(address: &str, port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect((address, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let (mut lines, length) = (head.lines(), format!("Content-Length: {}", body.len()));
    let ok = lines.next().is_some_and(|line| line.contains(" 200 ")) && lines.any(|line| line == length);
    if ok { Ok(body.to_owned()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Requests, three at a time, while `act` is done; not one may fail.
#[track_caller]
pub fn under_load<T>(proxy: &Proxy, act: impl FnOnce() -> T) -> T {
    let (done, all, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let outcome = std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    failed.fetch_add(usize::from(proxy.get().is_err()), Ordering::Relaxed);
                    all.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
        // Also if it panics: otherwise the load never ends.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        done.store(true, Ordering::Relaxed);
        outcome
    });
    let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let (all, failed) = (all.into_inner(), failed.into_inner());
    assert!(all > 0);
    assert_eq!(failed, 0, "of {all} requests");
    outcome
}
