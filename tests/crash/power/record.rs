//! What strace writes of a call, taken apart.

use std::time::{Duration, SystemTime};

/// `3</t>, "a, b", 0600` is three.
pub fn arguments(text: &str) -> Vec<String> {
    let (mut all, mut quoted, mut escaped, mut depth) = (vec![String::new()], false, false, 0);
    for c in text.chars() {
        match c {
            '"' if !escaped => quoted = !quoted,
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                all.push(String::new());
                continue;
            }
            _ => {}
        }
        escaped = quoted && c == '\\' && !escaped;
        let last = all.last_mut().unwrap();
        if !(c == ' ' && last.is_empty()) {
            last.push(c);
        }
    }
    all
}

/// `3</tree/a>` is `/tree/a`.
pub fn path_of(descriptor: &str) -> Option<&str> {
    Some(descriptor.split_once('<')?.1.rsplit_once('>')?.0)
}

/// A name as strace writes it.
pub fn text(quoted: &str) -> String {
    String::from_utf8(unquoted(quoted)).unwrap()
}

/// The second of the two times that utimensat is given, if it is none of the special ones.
pub fn modified(times: &str) -> Option<SystemTime> {
    let (_, last) = times.rsplit_once("{tv_sec=")?;
    let (seconds, rest) = last.split_once(", tv_nsec=")?;
    let (nanoseconds, _) = rest.split_once('}')?;
    Some(SystemTime::UNIX_EPOCH + Duration::new(seconds.parse().ok()?, nanoseconds.parse().ok()?))
}

/// The bytes of a text as strace writes it.
pub fn unquoted(quoted: &str) -> Vec<u8> {
    let inner = quoted.trim_end_matches("...").trim_matches('"').as_bytes();
    let inner = if quoted.ends_with("\\\"\"") { &quoted.as_bytes()[1..quoted.len() - 1] } else { inner };
    let (mut bytes, mut at) = (Vec::new(), 0);
    while at < inner.len() {
        if inner[at] != b'\\' {
            bytes.push(inner[at]);
            at += 1;
            continue;
        }
        let digits = inner[at + 1..].iter().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
        if digits > 0 {
            let number = inner[at + 1..=at + digits].iter().fold(0_u32, |n, digit| n * 8 + u32::from(digit - b'0'));
            bytes.push(u8::try_from(number).unwrap());
            at += 1 + digits;
            continue;
        }
        bytes.push(match inner[at + 1] {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'v' => 11,
            b'f' => 12,
            other => other,
        });
        at += 2;
    }
    bytes
}

#[test]
fn texts_are_read_as_strace_writes_them() {
    assert_eq!(unquoted(r#""a\n\"b\"\0\342\200\246""#), "a\n\"b\"\0…".as_bytes());
    assert_eq!(arguments(r#"3</t>, "a, \"b", [{c, d}], 0600"#), ["3</t>", r#""a, \"b""#, "[{c, d}]", "0600"]);
    let times = r#"[{tv_sec=1, tv_nsec=0} /* 1970-01-01T00:00:01+0000 */, {tv_sec=2, tv_nsec=5} /* … */]"#;
    assert_eq!(modified(times), Some(SystemTime::UNIX_EPOCH + Duration::new(2, 5)));
}
