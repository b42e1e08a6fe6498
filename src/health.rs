//! Whether the application is up: a URL that answers with 2xx, or a command that succeeds, asked again and again until it
//! passes or its time is up. Only plain http, over TCP: a check of this host's own application needs no certificate, and
//! what needs one is a `command`.

pub mod http;

use crate::recipe::HealthTable;
use crate::tools::Program;
use http::{HttpUrl, connect_tcp, exchange};
use std::time::{Duration, Instant};

/// The time a check has if nothing else is said.
const LIMIT: Duration = Duration::from_secs(60);
/// The longest one request may take, so that a hung worker does not use up the time of its healthy neighbours.
const ONE_REQUEST: Duration = Duration::from_secs(10);
/// Pauses between two tries: the first one, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// Why an application is not known to be up.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// `[health]` cannot be used as it is.
    #[error("[health] {0}")]
    Misconfigured(String),
    /// The time was up.
    #[error("the health check {asked} did not pass within {} s: {last}", limit.as_secs())]
    Unhealthy {
        /// The URL or the command.
        asked: String,
        /// The time it had.
        limit: Duration,
        /// What the last try said.
        last: String,
    },
}

/// A check that can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    question: Question,
    limit: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    Url(String, HttpUrl),
    Command(String),
}

impl Health {
    /// What `[health]` asks for; `None` if it asks for nothing.
    pub fn new(table: &HealthTable) -> Result<Option<Self>, HealthError> {
        let wrong = |message: String| Err(HealthError::Misconfigured(message));
        let question = match (&table.url, &table.command) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return wrong("has both url and command: keep one of them".to_owned()),
            (None, Some(command)) => Question::Command(command.clone()),
            (Some(url), None) => match HttpUrl::parse(url) {
                Ok(parsed) => Question::Url(url.clone(), parsed),
                Err(why) => {
                    return wrong(format!(
                        "url = {url:?}: {why}; for anything but plain http use command, such as \"curl -fsS {url}\""
                    ));
                }
            },
        };
        Ok(Some(Self { question, limit: table.timeout.map_or(LIMIT, |span| span.0) }))
    }

    /// The longest [`Health::wait`] lasts, apart from ending a command that does not end by itself.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Asks until it passes or the time is up. `command` makes a program of the command: a shell in the release.
    pub fn wait(&self, command: &dyn Fn(&str) -> Program) -> Result<(), HealthError> {
        let deadline = Instant::now() + self.limit;
        let [mut pause, longest] = PAUSES;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let last = match self.ask(command, left) {
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            if Instant::now() + pause >= deadline {
                let asked = match &self.question {
                    Question::Url(asked, _) | Question::Command(asked) => asked.clone(),
                };
                return Err(HealthError::Unhealthy { asked, limit: self.limit, last });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
    }

    fn ask(&self, command: &dyn Fn(&str) -> Program, left: Duration) -> Result<(), String> {
        match &self.question {
            Question::Command(text) => command(text).limit(left).run(&mut |_| Ok(())).map_err(|e| e.to_string()),
            Question::Url(_, url) => get(url, Instant::now() + left.min(ONE_REQUEST)),
        }
    }
}

/// Whether `url` answers with 2xx; otherwise what it did instead.
fn get(url: &HttpUrl, deadline: Instant) -> Result<(), String> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: releasectl\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.target,
        url.authority()
    );
    let answer = connect_tcp(&url.host, url.port, deadline)
        .and_then(|mut stream| exchange(&mut stream, request.as_bytes(), false, deadline))
        .map_err(|e| e.to_string())?;
    match answer.status {
        200..=299 => Ok(()),
        status => Err(format!("it answered {status} {}", answer.reason).trim_end().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Span;
    use crate::tools::Tools;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn shell(text: &str) -> Program {
        Tools::new(std::env::vars_os(), false).program("sh").args(["-c", text])
    }

    fn health(url: Option<&str>, command: Option<&str>, timeout: u64) -> Health {
        let [url, command] = [url, command].map(|text| text.map(str::to_owned));
        let timeout = Some(Span(Duration::from_millis(timeout)));
        Health::new(&HealthTable { url, command, timeout }).unwrap().unwrap()
    }

    /// A server that gives these answers, one a connection, and then hangs up at once.
    fn serve(answers: Vec<&'static str>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/up", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        url
    }

    #[test]
    fn a_url_passes_with_2xx_after_failing_first() {
        let url = serve(vec!["HTTP/1.1 503 Starting\r\n\r\n", "", "HTTP/1.1 204 No Content\r\n\r\n"]);
        health(Some(&url), None, 30_000).wait(&shell).unwrap();
    }

    #[test]
    fn a_redirect_is_not_up() {
        let url = serve(vec!["HTTP/1.1 301 Moved\r\n\r\n"; 50]);
        let error = health(Some(&url), None, 50).wait(&shell).unwrap_err().to_string();
        assert!(error.contains("301 Moved") && error.contains(&url), "{error}");
    }

    #[test]
    fn a_server_that_never_answers_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let error = health(Some(&url), None, 50).wait(&shell).unwrap_err().to_string();
        assert!(error.contains("no answer in time"), "{error}");
    }

    #[test]
    fn a_command_passes_when_it_succeeds_and_its_words_are_kept_when_not() {
        health(None, Some("true"), 1000).wait(&shell).unwrap();
        let error = health(None, Some("echo not yet; false"), 50).wait(&shell).unwrap_err().to_string();
        assert!(error.contains("not yet"), "{error}");
        let error = health(None, Some("sleep 600"), 50).wait(&shell).unwrap_err().to_string();
        assert!(error.contains("killed"), "{error}");
    }

    #[test]
    fn https_is_a_configuration_error_that_names_the_way_out() {
        let table = HealthTable { url: Some("https://x/up".into()), ..HealthTable::default() };
        let error = Health::new(&table).unwrap_err().to_string();
        assert!(error.contains("https") && error.contains("command"), "{error}");
        assert_eq!(Health::new(&HealthTable::default()).unwrap(), None);
        let both = HealthTable { url: Some("http://x".into()), command: Some("true".into()), timeout: None };
        assert!(Health::new(&both).is_err());
    }
}
