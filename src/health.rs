//! Whether the application is up: a URL that answers with 2xx, or a command that succeeds, asked again and again until it
//! passes or its time is up. Only plain http, over TCP: a check of this host's own application needs no certificate, and
//! what needs one is a `command`.

pub mod http;

use crate::recipe::{HealthTable, HttpUrl};
use crate::tools::Program;
use http::{HttpError, connect_tcp, exchange};
use std::time::{Duration, Instant};

/// The time a check has if nothing else is said.
const LIMIT: Duration = Duration::from_secs(60);
/// The longest one request may take, so that a hung worker does not use up the time of its healthy neighbours.
const ONE_REQUEST: Duration = Duration::from_secs(10);
/// Pauses between two tries: the first one, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// An application that is not known to be up: the time was up.
#[derive(Debug, thiserror::Error)]
#[error("the health check {asked} did not pass within {} s: {last}", limit.as_secs())]
pub struct Unhealthy {
    /// The URL or the command.
    asked: String,
    /// The time it had.
    limit: Duration,
    /// What the last try said.
    last: String,
}

/// A check that can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    question: Question,
    limit: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    Url(HttpUrl),
    Command(String),
}

impl Health {
    /// What `[health]` asks for; `None` if it asks for nothing.
    pub fn new(table: &HealthTable) -> Option<Self> {
        let url = table.url.clone().map(Question::Url);
        let question = url.or_else(|| table.command.clone().map(Question::Command))?;
        Some(Self { question, limit: table.timeout.map_or(LIMIT, |span| span.0) })
    }

    /// The longest [`Health::wait`] lasts, apart from ending a command that does not end by itself.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Asks until it passes or the time is up. `command` makes a program of the command: a shell in the release.
    pub fn wait(&self, command: &dyn Fn(&str) -> Program) -> Result<(), Unhealthy> {
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
                    Question::Url(url) => url.to_string(),
                    Question::Command(command) => command.clone(),
                };
                return Err(Unhealthy { asked, limit: self.limit, last });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
    }

    fn ask(&self, command: &dyn Fn(&str) -> Program, left: Duration) -> Result<(), String> {
        match &self.question {
            Question::Command(text) => command(text).limit(left).run(&mut |_| Ok(())).map_err(|e| e.to_string()),
            Question::Url(url) => get(url, left.min(ONE_REQUEST)),
        }
    }
}

/// Whether `url` answers with 2xx within `limit`; otherwise what it did instead.
fn get(url: &HttpUrl, limit: Duration) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: releasectl\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.target,
        url.authority()
    );
    let answer = connect_tcp(&url.host, url.port, deadline)
        .and_then(|mut stream| exchange(&mut stream, request.as_bytes(), false, deadline))
        .map_err(|error| match error {
            HttpError::Overdue if limit == ONE_REQUEST => {
                format!("a request had no answer within {} s", limit.as_secs())
            }
            error => error.to_string(),
        })?;
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
        let (url, command) = (url.map(|url| HttpUrl::parse(url).unwrap()), command.map(str::to_owned));
        let timeout = Some(Span(Duration::from_millis(timeout)));
        Health::new(&HealthTable { url, command, timeout }).unwrap()
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
    fn a_url_passes_by_the_answer_after_any_amount_of_news() {
        let news = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(200_000);
        let url = serve(vec![format!("{news}HTTP/1.1 204 No Content\r\n\r\n").leak()]);
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
}
