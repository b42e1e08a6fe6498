//! supervisord's XML-RPC interface: the methods used here, over its unix socket or http, each call with a hard time limit.
//! A connection a call: supervisord is asked few things, and none may depend on what became of an earlier connection.

pub mod methods;
pub mod xml;

use crate::health::http::{Answer, HttpError, connect_tcp, connect_unix, exchange};
use crate::recipe::HttpUrl;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use xml::Value;

/// Where supervisord listens, and as whom to ask.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its socket.
    pub address: Address,
    /// User name and password.
    pub login: Option<(String, String)>,
}

/// Without the password.
impl fmt::Debug for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} as {:?}", self.address, self.login.as_ref().map(|(name, _)| name))
    }
}

/// Where supervisord listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// Plain http.
    Http(HttpUrl),
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(out, "{}", path.display()),
            Self::Http(url) => write!(out, "http://{}", url.authority()),
        }
    }
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// Nobody is there, or we may not talk to them.
    #[error("cannot reach supervisord at {address}: {cause}")]
    Unreachable {
        /// Where.
        address: Address,
        /// The system's answer.
        cause: io::Error,
    },
    /// It did not answer. Whether it did what was asked is not known.
    #[error("supervisord at {address} did not answer {method} within {} s", limit.as_secs_f64())]
    Overdue {
        /// Where.
        address: Address,
        /// What was asked.
        method: String,
        /// The time it had.
        limit: Duration,
    },
    /// The connection ended in the middle. Whether it did what was asked is not known.
    #[error("supervisord at {address} hung up during {method}: {cause}")]
    HungUp {
        /// Where.
        address: Address,
        /// What was asked.
        method: String,
        /// The system's answer.
        cause: io::Error,
    },
    /// Wrong or no user name and password.
    #[error("supervisord at {address} refuses the user name and password of its configuration file")]
    Unauthorized {
        /// Where.
        address: Address,
    },
    /// It answered, but not in XML-RPC.
    #[error("supervisord at {address} answered {method} with {what}")]
    Garbled {
        /// Where.
        address: Address,
        /// What was asked.
        method: String,
        /// What came.
        what: String,
    },
    /// It answered that it will not or cannot.
    #[error("supervisord: {method}: {text}")]
    Fault {
        /// What was asked.
        method: String,
        /// Which fault.
        fault: Fault,
        /// Its words.
        text: String,
    },
}

impl RpcError {
    /// The fault, if it is one.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Fault { fault, .. } => Some(*fault),
            _ => None,
        }
    }
}

/// supervisord's faults (`supervisor.xmlrpc.Faults`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are named as supervisord names them")]
pub enum Fault {
    UnknownMethod,
    IncorrectParameters,
    BadArguments,
    ShutdownState,
    BadName,
    BadSignal,
    NoFile,
    NotExecutable,
    Failed,
    AbnormalTermination,
    SpawnError,
    AlreadyStarted,
    NotRunning,
    AlreadyAdded,
    StillRunning,
    CantReread,
    Other(i64),
}

impl Fault {
    fn new(code: i64) -> Self {
        match code {
            1 => Self::UnknownMethod,
            2 => Self::IncorrectParameters,
            3 => Self::BadArguments,
            6 => Self::ShutdownState,
            10 => Self::BadName,
            11 => Self::BadSignal,
            20 => Self::NoFile,
            21 => Self::NotExecutable,
            30 => Self::Failed,
            40 => Self::AbnormalTermination,
            50 => Self::SpawnError,
            60 => Self::AlreadyStarted,
            70 => Self::NotRunning,
            90 => Self::AlreadyAdded,
            91 => Self::StillRunning,
            92 => Self::CantReread,
            other => Self::Other(other),
        }
    }
}

/// Asks supervisord.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    limit: Duration,
}

impl Client {
    /// A client whose every call ends within `limit`. Nothing is asked yet.
    pub fn new(endpoint: Endpoint, limit: Duration) -> Self {
        Self { endpoint, limit }
    }

    /// Where it asks.
    pub fn address(&self) -> &Address {
        &self.endpoint.address
    }

    /// Calls any method and returns what it answers.
    pub fn call(&self, method: &str, parameters: &[Value]) -> Result<Value, RpcError> {
        let deadline = Instant::now() + self.limit;
        let request = self.request(&xml::call(method, parameters));
        let answer = self.post(request.as_bytes(), deadline).map_err(|error| self.explain(method, error))?;
        let garbled =
            |what: String| RpcError::Garbled { address: self.address().clone(), method: method.to_owned(), what };
        match answer.status {
            200 => {}
            401 => return Err(RpcError::Unauthorized { address: self.address().clone() }),
            status => return Err(garbled(format!("{status} {}", answer.reason))),
        }
        let text = String::from_utf8_lossy(&answer.body);
        match xml::answer(&text) {
            Some(Ok(value)) => Ok(value),
            Some(Err(fault)) => Err(fault_of(method, &fault)),
            None => Err(garbled("something that is not XML-RPC".to_owned())),
        }
    }

    /// Calls several methods in one go: supervisord does nothing else between them. One result each, in order.
    pub fn call_together(&self, calls: &[(&str, Vec<Value>)]) -> Result<Vec<Result<Value, RpcError>>, RpcError> {
        let entry = |(method, parameters): &(&str, Vec<Value>)| {
            let members = [("methodName", Value::from(*method)), ("params", Value::Array(parameters.clone()))];
            Value::Struct(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>())
        };
        let answer = self.call("system.multicall", &[Value::Array(calls.iter().map(entry).collect())])?;
        let results = calls.iter().zip(answer.array().unwrap_or_default()).map(|((method, _), result)| {
            if result.member("faultCode").is_some() { Err(fault_of(method, result)) } else { Ok(result.clone()) }
        });
        Ok(results.collect())
    }

    fn request(&self, body: &str) -> String {
        let host = match self.address() {
            Address::Unix(_) => "localhost".to_owned(),
            Address::Http(url) => url.authority(),
        };
        let login = self.endpoint.login.as_ref().map(|(name, password)| {
            format!("Authorization: Basic {}\r\n", base64(format!("{name}:{password}").as_bytes()))
        });
        format!(
            "POST /RPC2 HTTP/1.1\r\nHost: {host}\r\nUser-Agent: releasectl\r\nContent-Type: text/xml\r\nConnection: close\r\n\
             {}Content-Length: {}\r\n\r\n{body}",
            login.unwrap_or_default(),
            body.len()
        )
    }

    fn post(&self, request: &[u8], deadline: Instant) -> Result<Answer, HttpError> {
        match self.address() {
            Address::Unix(path) => exchange(&mut connect_unix(path, deadline)?, request, true, deadline),
            Address::Http(url) => exchange(&mut connect_tcp(&url.host, url.port, deadline)?, request, true, deadline),
        }
    }

    fn explain(&self, method: &str, error: HttpError) -> RpcError {
        let (address, method) = (self.address().clone(), method.to_owned());
        match error {
            HttpError::Connect(cause) => RpcError::Unreachable { address, cause },
            HttpError::Overdue => RpcError::Overdue { address, method, limit: self.limit },
            HttpError::Broken(cause) => RpcError::HungUp { address, method, cause },
            HttpError::Malformed(what) => {
                RpcError::Garbled { address, method, what: format!("an answer that is not HTTP: {what}") }
            }
        }
    }
}

fn fault_of(method: &str, fault: &Value) -> RpcError {
    let code = fault.member("faultCode").and_then(Value::int).unwrap_or_default();
    let text = fault.member("faultString").and_then(Value::text).unwrap_or_default().to_owned();
    RpcError::Fault { method: method.to_owned(), fault: Fault::new(code), text }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let sextet = (bits >> (18 - 6 * place)) as usize & 63;
            out.push(if place > three.len() { '=' } else { char::from(ALPHABET[sextet]) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("é:ö", "w6k6w7Y=")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let login = Some(("ops".to_owned(), "s3cret".to_owned()));
        let endpoint = Endpoint { address: Address::Unix("/run/s.sock".into()), login };
        let client = Client::new(endpoint, Duration::from_secs(1));
        assert!(!format!("{client:?}").contains("s3cret"));
        assert!(client.request("").contains("Authorization: Basic b3BzOnMzY3JldA=="));
    }

    #[test]
    fn a_socket_that_is_not_there_is_unreachable() {
        let endpoint = Endpoint { address: Address::Unix("/nowhere/s.sock".into()), login: None };
        let error = Client::new(endpoint, Duration::from_secs(1)).call("x", &[]).unwrap_err();
        assert!(matches!(error, RpcError::Unreachable { .. }), "{error}");
    }
}
