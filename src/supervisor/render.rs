//! Templates and the recipe's `[[supervisor.program]]` tables → the files a release has for supervisord on this host.
//!
//! A template is Jinja2. What it may use:
//!
//! | variable | what it is |
//! | --- | --- |
//! | `environment` | the environment's name |
//! | `root` | the tree's root |
//! | `current` | `<root>/current`: programs are to use this path, since supervisord starts them again long after this release was built |
//! | `python_env` | the live release's virtual environment, below `current` |
//! | `host` | this host's name |
//! | `roles` | this host's roles |
//! | `user` | the configured user; not there if none is configured |
//! | `index`, `count` | which of how many, from 0 |
//! | every key of `params` | its value, or this host's instead of it; also as `params` |
//!
//! Filters: `default`, `first`, `int`, `items`, `join`, `last`, `length`, `lower`, `replace`, `sort`, `trim`, `upper`; tests: `defined`,
//! `undefined`, `none`; the function `range`. Neither more of them nor includes and macros: they would add 280 kB to the binary.
//!
//! A variable that is not there is an error, never an empty text. `hosts.NAME.count` says how often on the host NAME. A value
//! stands in a line of an ini file that supervisord expands: `%` is doubled, a line break, a control character or a
//! comment sign that would cut it off is refused. The text of the template itself is left as it is, so it may say
//! `%(program_name)s`, `;` and `%%`.

use super::conf::edit::set_user;
use super::conf::ini::Ini;
use super::conf::{self, ConfError, Declared};
use crate::directory::{Dir, PathError};
use crate::layout::{CURRENT, STATE};
use crate::recipe::{ProgramTable, SupervisorTable, nearest};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, UndefinedBehavior, filters, functions, tests as tested};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The first line of a rendered file begins with it.
const HEADING: &str = "; rendered by releasectl from ";
/// Stand for a `;` and a `#` that begin a value, until it is known what precedes them.
const SIGNS: [(char, char); 2] = [(';', '\u{1}'), ('#', '\u{2}')];

/// The most files that one entry is rendered into.
const MOST: u32 = 1000;

/// What this host is.
#[derive(Clone, Debug)]
pub struct Host {
    /// The environment's name.
    pub environment: String,
    /// The tree's root.
    pub root: PathBuf,
    /// The virtual environment's directory in a release.
    pub python: PathBuf,
    /// Its name.
    pub name: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Whom programs run as.
    pub user: Option<String>,
}

/// Why nothing was rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A template names something that is not there, or cannot be read.
    #[error("template {template}: {message}")]
    Template {
        /// Its name.
        template: String,
        /// What is wrong, and in which line.
        message: String,
    },
    /// The configuration asks for something that cannot be.
    #[error("[[supervisor.program]] {template}: {message}")]
    Table {
        /// The template of the entry.
        template: String,
        /// What is wrong.
        message: String,
    },
    /// What came out cannot be given to supervisord.
    #[error("rendered {0}")]
    Rendered(ConfError),
    /// The file system said no.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// Renders what `table` asks for on `host` from `templates` (text by name). Files by name, in order; each declares only
/// programs, groups, fcgi-programs and eventlisteners, runs them as the configured user, and no two declare the same.
pub fn render(
    templates: &BTreeMap<String, String>,
    table: &SupervisorTable,
    host: &Host,
) -> Result<Vec<(String, String)>, RenderError> {
    let mut jinja = environment();
    for (name, text) in templates {
        jinja.add_template(name, text).map_err(|error| template_error(name, text, &error))?;
    }
    let mut files: Vec<(String, String)> = Vec::new();
    for program in table.program.iter().filter(|program| is_wanted(program, host)) {
        let template = program.template.to_string_lossy().into_owned();
        if is_named(&table.blacklist, &template) {
            continue;
        }
        let found = jinja.get_template(&template).map_err(|_| RenderError::Table {
            template: template.clone(),
            message: "there is no such template".to_owned(),
        })?;
        let (params, count) = parameters(program, host)?;
        for index in 0..count {
            let context = context(&params, host, index, count);
            let text = found.render(context).map_err(|error| template_error(&template, found.source(), &error))?;
            let text =
                signs_back(&text).map_err(|message| RenderError::Template { template: template.clone(), message })?;
            if text.trim().is_empty() || blacklisted(&text, &table.blacklist, &template)? {
                continue;
            }
            let text = format!("{HEADING}{template}\n{text}");
            let broken = |cause| RenderError::Rendered(ConfError::Broken { file: template.clone(), cause });
            let text =
                host.user.as_deref().map_or_else(|| Ok(text.clone()), |user| set_user(&text, user)).map_err(broken)?;
            files.push((free_name(&template, index, count, &files), text));
        }
    }
    conf::declared(files.iter().map(|(name, text)| (name.as_str(), text.as_str()))).map_err(RenderError::Rendered)?;
    files.sort_unstable();
    Ok(files)
}

/// A template, or the directory of all, that is named and not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// As it is written.
    pub name: String,
    /// One sentence, with the nearest there is.
    pub message: String,
}

/// The first thing that `table` names and `release` does not have. What is for other hosts counts too.
pub fn absent(release: &Dir, table: &SupervisorTable) -> Result<Option<Absent>, RenderError> {
    let told = |name: String, what: String, known: &[String]| {
        let hint = nearest(&name, known.iter().map(String::as_str));
        let hint = hint.map(|known| format!("; the nearest there is {known:?}")).unwrap_or_default();
        Ok(Some(Absent { message: format!("{what}{hint}"), name }))
    };
    let mut wanted = table.program.iter().map(|program| program.template.to_string_lossy().into_owned());
    let Some(directory) = &table.templates else {
        let what = |name: &String| format!("template {name:?} is in no directory: [supervisor] has no `templates`");
        return wanted.next().map_or(Ok(None), |name| told(name.clone(), what(&name), &[]));
    };
    if release.open_below(directory).is_err_and(|error| error.cause.kind() == std::io::ErrorKind::NotFound) {
        let name = directory.to_string_lossy().into_owned();
        let what = format!("there is no directory {name:?} of templates in the code");
        return told(name, what, &beside(release, directory));
    }
    let known: Vec<String> = templates(release, directory)?.into_keys().collect();
    let gone = wanted.find(|name| !known.contains(name) && !is_named(&table.blacklist, name));
    let what = |name: &String| format!("there is no template {name:?} in {}", directory.display());
    gone.map_or(Ok(None), |name| told(name.clone(), what(&name), &known))
}

/// What lies beside a path that is not there, in the deepest directory above it that is.
fn beside(release: &Dir, path: &Path) -> Vec<String> {
    let above = path.ancestors().skip(1).find_map(|above| Some((above, release.open_below(above).ok()?)));
    let names = |(above, dir): (&Path, Dir)| {
        let names = dir.names().unwrap_or_default().into_iter().filter(|name| name != STATE);
        names.map(|name| above.join(name).to_string_lossy().into_owned()).collect()
    };
    above.map(names).unwrap_or_default()
}

/// The templates of a release: the files of `directory` in it, by name.
pub fn templates(release: &Dir, directory: &Path) -> Result<BTreeMap<String, String>, RenderError> {
    let dir = release.open_below(directory)?;
    let mut templates = BTreeMap::new();
    for name in dir.names()?.into_iter().filter_map(|name| name.into_string().ok()) {
        let is_file = dir.stat(&name)?.is_some_and(|s| crate::directory::kind(&s) == nix::sys::stat::SFlag::S_IFREG);
        if name.starts_with('.') || !is_file {
            continue;
        }
        let bytes = dir.read_file(&name, conf::LONGEST)?.unwrap_or_default();
        let not_text = |_| RenderError::Template { template: name.clone(), message: "it is not UTF-8".to_owned() };
        let text = String::from_utf8(bytes).map_err(not_text)?;
        templates.insert(name, text);
    }
    Ok(templates)
}

/// Makes `services/supervisor` of `release` hold `files`, and no file that was rendered earlier beside them; what the code
/// ships there under other names stays. Durable on return.
pub fn write(release: &Dir, files: &[(String, String)]) -> Result<Declared, RenderError> {
    let dir = release.ensure_below(Path::new(conf::DIRECTORY), 0o755)?;
    for (name, text) in files {
        dir.put_file(name, text.as_bytes(), 0o644)?;
    }
    for name in dir.names()?.into_iter().filter_map(|name| name.into_string().ok()) {
        let kept = files.iter().any(|(file, _)| *file == name);
        let is_file = || dir.stat(&name).map(|s| s.is_some_and(|s| s.st_mode & 0o170_000 == 0o100_000));
        if kept || !name.ends_with(".conf") || !is_file()? {
            continue;
        }
        if dir.read_file(&name, conf::LONGEST)?.is_some_and(|bytes| bytes.starts_with(HEADING.as_bytes())) {
            dir.unlink(&name)?;
        }
    }
    dir.sync()?;
    conf::declared_in(release).map_err(RenderError::Rendered)
}

fn environment() -> Environment<'static> {
    let mut jinja = Environment::empty();
    jinja.add_filter("default", filters::default);
    jinja.add_filter("first", filters::first);
    jinja.add_filter("int", filters::int);
    jinja.add_filter("items", filters::items);
    jinja.add_filter("join", filters::join);
    jinja.add_filter("last", filters::last);
    jinja.add_filter("length", filters::length);
    jinja.add_filter("lower", filters::lower);
    jinja.add_filter("replace", filters::replace);
    jinja.add_filter("sort", filters::sort);
    jinja.add_filter("trim", filters::trim);
    jinja.add_filter("upper", filters::upper);
    jinja.add_test("defined", tested::is_defined);
    jinja.add_test("undefined", tested::is_undefined);
    jinja.add_test("none", tested::is_none);
    jinja.add_function("range", functions::range);
    jinja.set_undefined_behavior(UndefinedBehavior::Strict);
    let mut syntax = SyntaxConfig::builder();
    if let Ok(syntax) = syntax.keep_trailing_newline(true).build() {
        jinja.set_syntax(syntax);
    }
    jinja.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    jinja.set_formatter(put);
    jinja
}

/// Writes a value into an ini file.
fn put(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let refuse = |why: &str| Err(Error::new(ErrorKind::InvalidOperation, format!("the value {value:?} {why}")));
    match value.kind() {
        ValueKind::Undefined => return Err(Error::new(ErrorKind::UndefinedError, "it is not defined")),
        ValueKind::None => return refuse("is nothing"),
        _ => {}
    }
    let text = value.to_string();
    if text.chars().any(char::is_control) {
        return refuse("has a line break or control character");
    }
    let cut = |pair: (char, char)| pair.0.is_whitespace() && matches!(pair.1, ';' | '#');
    if text.chars().zip(text.chars().skip(1)).any(cut) {
        return refuse("has a comment sign after a space, where supervisord would cut it off");
    }
    let mut text = text.replace('%', "%%");
    if let Some((sign, stand_in)) = SIGNS.iter().find(|(sign, _)| text.starts_with(*sign)) {
        text.replace_range(..sign.len_utf8(), &stand_in.to_string());
    }
    out.write_str(&text).map_err(|_| Error::new(ErrorKind::WriteFailure, "no memory"))
}

/// Puts the comment signs that begin values back, unless one would begin a comment.
fn signs_back(text: &str) -> Result<String, String> {
    let mut before = '\n';
    for c in text.chars() {
        if before.is_whitespace() && SIGNS.iter().any(|(_, stand_in)| *stand_in == c) {
            return Err("a value begins with ; or # after a space, where supervisord would cut it off".to_owned());
        }
        before = c;
    }
    Ok(SIGNS.iter().fold(text.to_owned(), |text, (sign, stand_in)| text.replace(*stand_in, &sign.to_string())))
}

fn is_wanted(program: &ProgramTable, host: &Host) -> bool {
    program.roles.is_empty() || program.roles.iter().any(|role| host.roles.contains(role))
}

/// Whether `list` names a template, with or without its endings.
fn is_named(list: &[String], template: &str) -> bool {
    list.iter().any(|name| name == template || name == stem(template))
}

fn stem(template: &str) -> &str {
    let name = template.rsplit('/').next().unwrap_or(template);
    name.trim_end_matches(".j2").trim_end_matches(".jinja").trim_end_matches(".conf")
}

/// Whether all programs of a rendered text are in `list`. Some of them only cannot be left out: the rest may need them.
fn blacklisted(text: &str, list: &[String], template: &str) -> Result<bool, RenderError> {
    let broken = |cause| RenderError::Rendered(ConfError::Broken { file: template.to_owned(), cause });
    let ini = Ini::parse(text).map_err(broken)?;
    let names: Vec<&str> = ini.sections.iter().filter_map(|s| s.name.split_once(':')).map(|(_, name)| name).collect();
    let listed = |name: &&&str| list.iter().any(|listed| listed == **name);
    match (names.iter().filter(listed).count(), names.len()) {
        (0, _) => Ok(false),
        (listed, all) if listed == all => Ok(true),
        _ => Err(RenderError::Table {
            template: template.to_owned(),
            message: format!("the blacklist names some of {} but not all of them", names.join(", ")),
        }),
    }
}

/// The values for this host, and how often the template is rendered with them.
fn parameters(program: &ProgramTable, host: &Host) -> Result<(BTreeMap<String, toml::Value>, u32), RenderError> {
    let wrong = |message: String| RenderError::Table { template: program.template.display().to_string(), message };
    let mut params = program.params.clone();
    let mut count = program.count.unwrap_or(1);
    for (key, value) in program.hosts.get(&host.name).into_iter().flatten() {
        if key == "count" {
            let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
            count = number.ok_or_else(|| wrong(format!("hosts.{}.count is not a number", host.name)))?;
        } else {
            params.insert(key.clone(), value.clone());
        }
    }
    match params.keys().find(|key| OWN.contains(&key.as_str())) {
        Some(key) => Err(wrong(format!("params may not be named {key}, which has a meaning of its own"))),
        None if count > MOST => Err(wrong(format!("a count of {count} is more than the {MOST} that are rendered"))),
        None => Ok((params, count)),
    }
}

/// Variables every template has.
const OWN: [&str; 10] =
    ["environment", "root", "current", "python_env", "host", "roles", "user", "index", "count", "params"];

fn context(params: &BTreeMap<String, toml::Value>, host: &Host, index: u32, count: u32) -> Value {
    let current = host.root.join(CURRENT);
    let path = |path: &Path| Value::from(path.to_string_lossy().into_owned());
    let mut context: BTreeMap<String, Value> =
        params.iter().map(|(name, value)| (name.clone(), jinja_value(value))).collect();
    let own = [
        ("environment", Value::from(host.environment.as_str())),
        ("root", path(&host.root)),
        ("python_env", path(&current.join(&host.python))),
        ("current", path(&current)),
        ("host", Value::from(host.name.as_str())),
        ("roles", Value::from(host.roles.clone())),
        ("index", Value::from(index)),
        ("count", Value::from(count)),
        ("params", jinja_table(params)),
    ];
    context.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
    context.extend(host.user.as_ref().map(|user| ("user".to_owned(), Value::from(user.as_str()))));
    Value::from(context)
}

fn jinja_value(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::from(text.as_str()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => Value::from(*number),
        toml::Value::Boolean(truth) => Value::from(*truth),
        toml::Value::Datetime(moment) => Value::from(moment.to_string()),
        toml::Value::Array(values) => values.iter().map(jinja_value).collect(),
        toml::Value::Table(table) => jinja_table(table),
    }
}

fn jinja_table<'a>(table: impl IntoIterator<Item = (&'a String, &'a toml::Value)>) -> Value {
    let pairs = table.into_iter().map(|(name, value)| (name.clone(), jinja_value(value)));
    Value::from(pairs.collect::<BTreeMap<String, Value>>())
}

/// `celery.conf`; `celery_0.conf` where there are several; `celery-2.conf` where that is taken.
fn free_name(template: &str, index: u32, count: u32, taken: &[(String, String)]) -> String {
    let stem = stem(template);
    let base = if count > 1 { format!("{stem}_{index}") } else { stem.to_owned() };
    let mut name = format!("{base}.conf");
    for more in 2.. {
        if taken.iter().all(|(file, _)| *file != name) {
            break;
        }
        name = format!("{base}-{more}.conf");
    }
    name
}

fn template_error(template: &str, text: &str, error: &Error) -> RenderError {
    let line = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
    let words = error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    // Which value it is the error does not know.
    let at = error.line().filter(|_| error.kind() == ErrorKind::UndefinedError);
    let at = at.and_then(|line| text.lines().nth(line.checked_sub(1)?)).map(|line| format!(" in `{}`", line.trim()));
    RenderError::Template { template: template.to_owned(), message: format!("{line}{words}{}", at.unwrap_or_default()) }
}

#[cfg(test)]
mod tests;
