//! One HTTP exchange over a stream of our own: a request out, an answer in, and a deadline that holds whatever the
//! other side does (accepts and says nothing, sends a byte a second, never resolves its name).

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The longest answer that is read.
const LONGEST: usize = 16 * 1024 * 1024;
/// What ends a head.
const BLANK: &[u8] = b"\r\n\r\n";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody listens there, or we may not talk to them.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The deadline passed.
    #[error("no answer in time")]
    Overdue,
    /// It ended in the middle.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// Something came that is not an answer.
    #[error("the answer is not HTTP: {0}")]
    Malformed(&'static str),
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200, 404, …
    pub status: u16,
    /// Its words.
    pub reason: String,
    /// Empty if only the head was asked for.
    pub body: Vec<u8>,
}

/// A stream whose waiting can be bounded.
pub trait Bounded: Read + Write {
    /// Bounds the next read or write.
    fn bound(&self, wait: Duration) -> io::Result<()>;
}

impl Bounded for TcpStream {
    fn bound(&self, wait: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(wait)).and_then(|()| self.set_write_timeout(Some(wait)))
    }
}

impl Bounded for UnixStream {
    fn bound(&self, wait: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(wait)).and_then(|()| self.set_write_timeout(Some(wait)))
    }
}

/// Connects over TCP; the name is resolved within the same deadline.
pub fn connect_tcp(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, HttpError> {
    let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in resolve(host, port, deadline)? {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(cause) => refused = cause,
        }
    }
    Err(overdue_or(refused, HttpError::Connect))
}

/// Connects to a unix socket. A listener that does not accept any more is waited for no longer than the deadline.
pub fn connect_unix(path: &Path, deadline: Instant) -> Result<UnixStream, HttpError> {
    let failed = |errno: nix::Error| overdue_or(errno.into(), HttpError::Connect);
    let address = UnixAddr::new(path).map_err(failed)?;
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    let wait = left(deadline)?;
    let wait = TimeVal::new(i64::try_from(wait.as_secs()).unwrap_or(i64::MAX), i64::from(wait.subsec_micros()).max(1));
    setsockopt(&fd, sockopt::SendTimeout, &wait).map_err(failed)?;
    connect(fd.as_raw_fd(), &address).map_err(failed)?;
    Ok(UnixStream::from(fd))
}

/// The addresses of `host`. Asking for a name cannot be interrupted, so it is asked beside and left behind if it lasts.
fn resolve(host: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, HttpError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (tell, told) = mpsc::channel();
    let host = host.to_owned();
    let ask = move || tell.send((host.as_str(), port).to_socket_addrs().map(Vec::from_iter));
    std::thread::Builder::new().spawn(ask).map_err(HttpError::Connect)?;
    told.recv_timeout(left(deadline)?).map_err(|_| HttpError::Overdue)?.map_err(HttpError::Connect)
}

/// Sends `request` and reads the answer, without its body if `whole` is false.
pub fn exchange(
    stream: &mut impl Bounded,
    request: &[u8],
    whole: bool,
    deadline: Instant,
) -> Result<Answer, HttpError> {
    let broken = |cause| overdue_or(cause, HttpError::Broken);
    let mut unsent = request;
    while !unsent.is_empty() {
        stream.bound(left(deadline)?).map_err(broken)?;
        match stream.write(unsent) {
            Ok(0) => return Err(HttpError::Broken(io::ErrorKind::WriteZero.into())),
            Ok(sent) => unsent = &unsent[sent..],
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(broken(cause)),
        }
    }
    let mut received = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        if let Some(answer) = parse(&received, whole, false)? {
            return Ok(answer);
        }
        if received.len() > LONGEST {
            return Err(HttpError::Malformed("it is too long"));
        }
        stream.bound(left(deadline)?).map_err(broken)?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                received.extend_from_slice(&buffer[..read]);
                received.drain(..news(&received));
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(broken(cause)),
        }
    }
    parse(&received, whole, true)?.ok_or_else(|| HttpError::Broken(io::ErrorKind::UnexpectedEof.into()))
}

/// How long what a server says on the way to its answer is: heads with a status below 200.
fn news(received: &[u8]) -> usize {
    let mut length = 0;
    while let Some(end) = end_of_head(&received[length..]) {
        let head = String::from_utf8_lossy(&received[length..length + end]);
        if !status(&head).is_some_and(|status| matches!(status, 100..=199)) {
            break;
        }
        length += end + BLANK.len();
    }
    length
}

fn end_of_head(received: &[u8]) -> Option<usize> {
    received.windows(BLANK.len()).position(|four| four == BLANK)
}

fn status(head: &str) -> Option<u16> {
    head.split([' ', '\r']).nth(1)?.parse().ok()
}

/// The answer in `received`; `None` while there is more of it to come.
fn parse(received: &[u8], whole: bool, ended: bool) -> Result<Option<Answer>, HttpError> {
    let Some(end) = end_of_head(received) else {
        let begins = received.len().min(5);
        let http = received[..begins] == b"HTTP/"[..begins];
        return if http { Ok(None) } else { Err(HttpError::Malformed("it does not begin with HTTP/")) };
    };
    let head = String::from_utf8_lossy(&received[..end]);
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = status(first).ok_or(HttpError::Malformed("it has no status"))?;
    let reason = first.splitn(3, ' ').nth(2).unwrap_or_default().to_owned();
    let mut answer = Answer { status, reason, body: Vec::new() };
    if !whole {
        return Ok(Some(answer));
    }
    let body = &received[end + BLANK.len()..];
    let headers = lines.filter_map(|line| line.split_once(':'));
    let mut lengths = headers.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = lengths.next().map(|(_, value)| value.trim().parse::<usize>());
    let length = length.transpose().map_err(|_| HttpError::Malformed("its length is not a number"))?;
    match length {
        Some(length) if body.len() >= length => answer.body = body[..length].to_vec(),
        None if ended => answer.body = body.to_vec(),
        _ => return Ok(None),
    }
    Ok(Some(answer))
}

fn left(deadline: Instant) -> Result<Duration, HttpError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(HttpError::Overdue) } else { Ok(left) }
}

fn overdue_or(cause: io::Error, other: impl Fn(io::Error) -> HttpError) -> HttpError {
    match cause.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => HttpError::Overdue,
        _ => other(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_has_come() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut], true, false).unwrap(), None, "{cut}");
        }
        let answer = parse(text, true, false).unwrap().unwrap();
        assert_eq!((answer.status, answer.reason.as_str(), answer.body.as_slice()), (200, "OK", &b"abc"[..]));
    }

    #[test]
    fn news_before_the_answer_is_no_part_of_it() {
        let hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let text = [&hint[..], b"HTTP/1.1 100\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"].concat();
        assert_eq!(news(&text[..hint.len() - 1]), 0, "it is not there yet");
        let answer = parse(&text[news(&text)..], false, false).unwrap().unwrap();
        assert_eq!((answer.status, answer.reason.as_str()), (204, "No Content"));
    }

    #[test]
    fn an_answer_without_a_length_lasts_to_the_end() {
        let text = b"HTTP/1.0 503 Not Now\r\n\r\nabc";
        assert_eq!(parse(text, true, false).unwrap(), None);
        assert_eq!(parse(text, true, true).unwrap().unwrap().body, b"abc");
        assert_eq!(parse(text, false, false).unwrap().unwrap().status, 503);
    }

    #[test]
    fn a_listener_that_accepts_nobody_is_not_waited_for() {
        let tree = tempfile::tempdir().unwrap();
        let path = tree.path().join("s");
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        nix::sys::socket::bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        nix::sys::socket::listen(&fd, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let connect = || connect_unix(&path, Instant::now() + Duration::from_millis(50));
        let connected: Vec<_> = (0..8).map(|_| connect()).collect();
        assert!(connected.first().unwrap().is_ok());
        assert!(matches!(connected.last().unwrap(), Err(HttpError::Overdue)), "{connected:?}");
    }

    #[test]
    fn what_is_not_http_is_refused_at_once() {
        assert!(matches!(parse(b"SSH-2.0", true, false), Err(HttpError::Malformed(_))));
        assert!(matches!(parse(b"HTTP/1.1 x\r\n\r\n", true, false), Err(HttpError::Malformed(_))));
        assert!(matches!(
            parse(b"HTTP/1.1 200\r\nContent-Length: x\r\n\r\n", true, false),
            Err(HttpError::Malformed(_))
        ));
    }
}
