//! What a value of these files may be, beside what TOML knows: durations, sizes, paths, versions.

use crate::layout::STATE;
use serde::Deserialize;
use std::path::{Component, PathBuf};
use std::time::Duration;

/// A number with its unit, or a number alone, which needs no quotation marks.
fn amount<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(match toml::Value::deserialize(from)? {
        toml::Value::String(text) => text,
        toml::Value::Integer(number) => number.to_string(),
        other => other.type_str().to_owned(),
    })
}

/// A duration as it is written in these files: `"60s"`, `"5m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = amount(from)?;
        let wrong =
            || serde::de::Error::custom(format!("{text:?} is not a duration such as \"90s\", \"5m\" or \"4h\""));
        crate::clock::parse_duration(&text).map(Self).ok_or_else(wrong)
    }
}

/// A path below the release, in plain names.
struct Inside(PathBuf);

impl<'de> Deserialize<'de> for Inside {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let path = PathBuf::deserialize(from)?;
        let names = path.components().filter(|part| *part != Component::CurDir).map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        let plain =
            names.collect::<Option<PathBuf>>().filter(|plain| plain.iter().next().is_some_and(|top| top != STATE));
        let wrong = || serde::de::Error::custom(format!("{path:?}: a path must lie in the release"));
        plain.map(Self).ok_or_else(wrong)
    }
}

pub(super) fn inside<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    Ok(Option::<Inside>::deserialize(from)?.map(|Inside(path)| path))
}

pub(super) fn all_inside<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
    Ok(Vec::<Inside>::deserialize(from)?.into_iter().map(|Inside(path)| path).collect())
}

/// What is the same wherever it is asked for, from cron or over ssh.
pub(super) fn absolute<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let path = Option::<PathBuf>::deserialize(from)?;
    if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
        return Err(serde::de::Error::custom(format!("{path:?} is not an absolute path such as \"/srv/app\"")));
    }
    Ok(path)
}

/// The same for a repository, unless it is a URL or lies on another host.
pub(super) fn repository<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    match text {
        Some(text) if !text.contains(':') && !text.starts_with('/') => {
            Err(serde::de::Error::custom(format!("{text:?} is neither a URL nor an absolute path")))
        }
        text => Ok(text),
    }
}

pub(super) fn version<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let version = Option::<String>::deserialize(from)?;
    let number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    match version {
        Some(text) if text.split('.').count() > 3 || !text.split('.').all(number) => {
            Err(serde::de::Error::custom(format!("{text:?} is not a Python version such as \"3.11\"")))
        }
        version => Ok(version),
    }
}

/// A number of bytes as it is written in these files: `"500M"`, `"2G"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl std::str::FromStr for Size {
    type Err = String;

    /// Reads a number and one of `K M G T` (of 1024), each also as `KB` or `KiB`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is not a size such as \"500M\" or \"2G\"");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let power = match unit.trim_end_matches('B').trim_end_matches('i') {
            "" => 0,
            "K" | "k" => 1,
            "M" => 2,
            "G" => 3,
            "T" => 4,
            _ => return Err(wrong()),
        };
        let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(1024_u64.checked_pow(power)?));
        bytes.map(Self).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        amount(from)?.parse().map_err(serde::de::Error::custom)
    }
}
