//! The address of a health check, and of a supervisord that listens on TCP.

use serde::Deserialize;
use std::fmt;

/// `http://host[:port]/path`, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// Name or address, without the brackets of an IPv6 address.
    pub host: String,
    /// 80 if not given.
    pub port: u16,
    /// Path and query.
    pub target: String,
}

impl HttpUrl {
    /// Reads a URL; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err("it contains white space or control characters");
        }
        let (scheme, rest) = text.split_once("://").ok_or("it does not begin with http://")?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => return Err("https is not spoken here, only plain http"),
            _ => return Err("it does not begin with http://"),
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let target = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if authority.contains('@') {
            return Err("it names a user, which is not supported");
        }
        let (host, port) = split_authority(authority)?;
        Ok(Self { host: host.to_owned(), port, target })
    }

    /// The value of a Host header.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }
}

fn split_authority(authority: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or("its [ has no ]")?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    if host.is_empty() {
        return Err("it names no host");
    }
    match port.strip_prefix(':').unwrap_or(port) {
        "" => Ok((host, 80)),
        digits => digits.parse().map(|port| (host, port)).map_err(|_| "its port is not a number up to 65535"),
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "http://{}{}", self.authority(), self.target)
    }
}

impl<'de> Deserialize<'de> for HttpUrl {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).map_err(|why| {
            let instead = format!("for anything but plain http use `command`, such as \"curl -fsS {text}\"");
            serde::de::Error::custom(format!("{text:?}: {why}; {instead}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_plain_http_with_a_host() {
        let url = HttpUrl::parse("http://127.0.0.1:9010/serverup.txt?a=b#c").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.target.as_str()), ("127.0.0.1", 9010, "/serverup.txt?a=b"));
        assert_eq!(url.authority(), "127.0.0.1:9010");
        let url = HttpUrl::parse("HTTP://[::1]:8000").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.target.as_str()), ("::1", 8000, "/"));
        assert_eq!(url.authority(), "[::1]:8000");
        assert_eq!(HttpUrl::parse("http://web?x").unwrap().target, "/?x");
        for bad in
            ["https://x/", "x", "ftp://x", "http://", "http://u@x/", "http://x:99999/", "http://x/a b", "http://[::1"]
        {
            assert!(HttpUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
