//! One line of JSON that carries its own checksum, so that a flipped bit or a torn write is never taken for the truth.

use serde::{Deserialize, Serialize};

/// `,"crc":"` + eight hexadecimal digits + `"}`.
const SEAL: usize = 18;

/// `value`, which must serialise to a JSON object with at least one field, as one line without its line end. The last
/// field, `crc`, is the CRC-32 of what stands before it.
pub fn seal(value: &impl Serialize) -> serde_json::Result<String> {
    let mut line = serde_json::to_string(value)?;
    line.pop();
    let sum = crc32fast::hash(line.as_bytes());
    line.push_str(&format!(",\"crc\":\"{sum:08x}\"}}"));
    Ok(line)
}

/// What was sealed in `line`, with or without its line end; `None` if it was not sealed, was changed since, or is of another shape.
pub fn unseal<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Option<T> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (content, seal) = line.split_at_checked(line.len().checked_sub(SEAL)?)?;
    let sum = seal.strip_prefix(b",\"crc\":\"")?.strip_suffix(b"\"}")?;
    if sum != format!("{:08x}", crc32fast::hash(content)).as_bytes() {
        return None;
    }
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn any_flipped_bit_and_any_cut_is_seen() {
        let value = BTreeMap::from([("name", "2026-11-22_23.40"), ("note", "a \"quoted\" }\nline")]);
        let line = seal(&value).unwrap();
        let read: BTreeMap<String, String> = unseal(line.as_bytes()).unwrap();
        assert_eq!(read["note"], value["note"]);
        for at in 0..line.len() {
            assert!(unseal::<BTreeMap<String, String>>(&line.as_bytes()[..at]).is_none());
            for bit in 0..8 {
                let mut bent = line.clone().into_bytes();
                bent[at] ^= 1 << bit;
                assert!(
                    unseal::<BTreeMap<String, String>>(&bent).is_none_or(|other| other == read),
                    "byte {at} bit {bit}"
                );
            }
        }
    }
}
