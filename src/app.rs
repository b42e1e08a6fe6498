//! Words become values, a verb is called, and what it did or could not do is printed, once.

use crate::cli::{Cli, Color, Command, Global, Kind, Resumed, SourceArgs, SupervisorVerb, fault};
use crate::clock::{Clock, Timestamp};
use crate::commands::activation::Unconfirmed;
use crate::commands::assemble::Manner;
use crate::commands::create::{Create, Resume};
use crate::commands::deploy::Deployed;
use crate::commands::hotfix::Change;
use crate::commands::supervisor::Verb;
use crate::commands::{self, Context, Outcome, Target};
use crate::config::Config;
use crate::error::{self, Error, Result};
use crate::exit::Exit;
use crate::gate::{self, Admitted, Refusal};
use crate::identity::{self, Account};
use crate::layout::Layout;
use crate::lock::Wait;
use crate::pin::Pin;
use crate::release::{SourceKind, without_password};
use crate::report::{self, Paint, Progress};
use crate::tools::Tools;
use crate::tree::Actor;
use crate::workplace::OPERATION;
use clap::CommandFactory;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid};
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Runs one command line, prints what came of it, and returns the exit status.
pub fn run(arguments: &[OsString]) -> Exit {
    hold_back_signals();
    keep_others_out();
    match Cli::read(arguments) {
        Ok(Cli { command: Command::Gate { .. }, .. }) => gated(arguments),
        Ok(cli) => perform(&cli, arguments, None),
        Err(error) => misspelt(&error, arguments),
    }
}

/// A lost terminal must not stop a change half-way, and a file-size limit must be an error, not a death. Programs we
/// start get a clean mask.
fn hold_back_signals() {
    let mut held = SigSet::empty();
    held.add(Signal::SIGHUP);
    held.add(Signal::SIGXFSZ);
    let _ = held.thread_block();
}

/// Whatever mask the caller has, nothing that is made here, or by the programs we start, is for everybody to write.
fn keep_others_out() {
    let inherited = umask(Mode::S_IWOTH);
    umask(inherited | Mode::S_IWOTH);
}

/// Help and version go to standard output; everything else is a usage error.
fn misspelt(error: &clap::Error, arguments: &[OsString]) -> Exit {
    if !error.use_stderr() {
        return written(print(&error.render().to_string()), Exit::Done, false);
    }
    if arguments.iter().any(|argument| argument == "--json") {
        let error = Error::new(error::Kind::Usage, fault::in_a_line(error)).hint("`releasectl --help`");
        let verb = Command::named(arguments);
        return written(print(&report::document(verb.as_deref(), None, None, None, Some(&error))), Exit::Usage, false);
    }
    let _ = write!(io::stderr(), "{}", error.render());
    Exit::Usage
}

/// Runs what an ssh key's client asks for, or says in one line why not.
fn gated(arguments: &[OsString]) -> Exit {
    let (asked, connection) = (std::env::var_os("SSH_ORIGINAL_COMMAND"), std::env::var("SSH_CONNECTION").ok());
    match gate::admit(arguments, asked.as_deref(), connection.as_deref()) {
        Ok(Admitted { cli, words, key }) => perform(&cli, &words, Some(&key)),
        Err(Refusal { error, json: true }) => written(
            print(&report::document(Some("gate"), None, None, None, Some(&error))),
            Exit::from(error.kind),
            false,
        ),
        Err(Refusal { error, json: false }) => {
            let _ = write!(io::stderr(), "{}", report::failure(&error, Paint { on: false }));
            Exit::from(error.kind)
        }
    }
}

/// Does what one command line says; `key` is whose key brought it here.
fn perform(cli: &Cli, arguments: &[OsString], key: Option<&str>) -> Exit {
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "releasectl", &mut script);
        return written(print(&String::from_utf8_lossy(&script)), Exit::Done, false);
    }
    let (context, outcome) = match context(&cli.global, arguments, key) {
        Ok(context) => {
            let allowed = refuse_reentry(&context, &cli.command).and_then(|()| refuse_contradiction(cli));
            let outcome = allowed.and_then(|()| dispatch(&context, &cli.command));
            (Some(context), outcome)
        }
        Err(error) => (None, Err(error)),
    };
    conclude(cli, context.as_ref(), outcome)
}

/// A step or hook must not change the tree it is a part of a change of: it would wait for itself. Only what `exec`,
/// `manage` and `task` started is an operator's own.
fn refuse_reentry(context: &Context, command: &Command) -> Result<()> {
    let operation = std::env::var(OPERATION).unwrap_or_default();
    let within = !matches!(operation.as_str(), "" | "exec" | "manage" | "task");
    let same = std::env::var_os("RELEASECTL_ROOT").is_some_and(|root| Path::new(&root) == context.root);
    if !(within && same && command.changes()) {
        return Ok(());
    }
    let message = format!("`{}` cannot be run from a step or hook of `{operation}` on the same tree", command.name());
    Err(Error::refused(message).hint("let the recipe say what is to be done, or run it afterwards"))
}

/// Refuses words each of which makes sense, and which together make none.
fn refuse_contradiction(cli: &Cli) -> Result<()> {
    let (message, hint) = match &cli.command {
        // A tar and a document do not fit into one standard output.
        Command::Export { .. } if cli.global.json => ("export writes a tar, not a document", "leave out --json"),
        Command::Create { source, .. } | Command::Deploy { source, .. }
            if source.source.as_deref() == Some("-") && source.kind.is_some_and(|kind| kind != Kind::Tar) =>
        {
            ("on standard input there can only be a tar", "leave out --as")
        }
        Command::Exec { command, .. } if command.first().is_some_and(|name| name.is_empty()) => {
            ("the command to run has no name", "name it: `releasectl exec -- COMMAND`")
        }
        _ => return Ok(()),
    };
    Err(Error::new(error::Kind::Usage, message).hint(hint))
}

/// Prints the outcome or the error.
fn conclude(cli: &Cli, context: Option<&Context>, outcome: Result<Outcome>) -> Exit {
    let (outcome, error) = match outcome {
        Ok(outcome) => {
            let error = shortcoming(&outcome);
            (Some(outcome), error)
        }
        Err(error) => (None, Some(error)),
    };
    let exit = error.as_ref().map_or(Exit::Done, |error| Exit::from(error.kind));
    let paint = |terminal: bool| {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Paint { on: cli.global.color == Color::Always || (cli.global.color == Color::Auto && terminal && wanted) }
    };
    if cli.global.json {
        let root = context.map(|context| context.root.as_path());
        let environment = context.and_then(|context| context.config.environment.as_deref());
        let document = report::document(Some(cli.command.name()), root, environment, outcome.as_ref(), error.as_ref());
        return written(print(&document), exit, cli.command.changes());
    }
    let text = outcome.map(|outcome| report::outcome(&outcome, paint(io::stdout().is_terminal()), cli.global.quiet));
    let printed = text.map_or(Ok(()), |text| print(&text));
    if let Some(error) = &error {
        let _ = write!(io::stderr(), "{}", report::failure(error, paint(io::stderr().is_terminal())));
    }
    written(printed, exit, cli.command.changes())
}

/// What a verb found, or what did not come up: the outcome is told all the same.
fn shortcoming(outcome: &Outcome) -> Option<Error> {
    match outcome {
        Outcome::Activate(activation) | Outcome::Deploy(Deployed { activation, .. }) => {
            let Unconfirmed { message, hint } = activation.unconfirmed.clone()?;
            Some(Error { hint, ..Error::new(error::Kind::NotConfirmed, message) })
        }
        Outcome::Doctor(diagnosis) if !diagnosis.is_healthy() => {
            let bad = diagnosis.checks.iter().filter(|check| !check.ok).count();
            Some(Error::new(error::Kind::Damaged, format!("{bad} checks found something")).hint("each says what to do"))
        }
        Outcome::Verify(verified) if !verified.difference.is_empty() => {
            let message = format!("release {} is not what it was when it became ready", verified.release);
            Some(Error::new(error::Kind::Failed, message).hint("build it anew, or find out who changed it"))
        }
        _ => None,
    }
}

/// Writes to standard output. A reader that went away is a quiet end.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// What was asked for and could not be written is a failure. What was changed is done all the same: status 1 would say
/// that it is not.
fn written(printed: io::Result<()>, exit: Exit, changes: bool) -> Exit {
    let Err(cause) = printed else { return exit };
    let _ = writeln!(io::stderr(), "error: cannot write to standard output: {cause}");
    if exit == Exit::Done && !changes { Exit::Failed } else { exit }
}

fn dispatch(context: &Context, command: &Command) -> Result<Outcome> {
    match command {
        Command::Init => commands::init::run(context),
        Command::Create { source, id, resume } => {
            let anyway = *resume == Some(Some(Resumed::Anyway));
            let resume = resume.clone().map(|resumed| match resumed {
                Some(Resumed::Release(id)) => Resume::Release(id),
                _ => Resume::Newest,
            });
            commands::create::run(context, &Create { id: id.clone(), resume, ..create(source, anyway) })
        }
        Command::Deploy { source, release, resume, expect_current } => {
            let create = create(source, matches!(resume, Some(Some(_))));
            let (release, expected) = (release.clone(), expect_current.clone());
            let deploy = commands::deploy::Deploy { create, release, resume: resume.is_some(), expected };
            commands::deploy::run(context, &deploy)
        }
        Command::Activate { release, expect_current, no_restart } => {
            commands::activate::run(context, release, expect_current.as_ref(), !no_restart)
        }
        Command::Rollback { to, expect_current, dry_run, no_restart } => {
            let (to, expected, dry_run, no_restart) = (to.clone(), expect_current.clone(), *dry_run, *no_restart);
            commands::rollback::run(context, &commands::rollback::Rollback { to, expected, dry_run, no_restart })
        }
        Command::Clean { keep, keep_for, min_free, dry_run } => {
            let (keep, keep_for, min_free, dry_run) = (*keep, *keep_for, min_free.map(|size| size.0), *dry_run);
            commands::clean::run(context, &commands::clean::Clean { keep, keep_for, min_free, dry_run })
        }
        Command::List => commands::list::run(context),
        Command::Status => commands::status::run(context),
        Command::Show { release } => commands::show::run(context, release),
        Command::History { count } => commands::history::run(context, *count),
        Command::Log { release } => commands::log::run(context, release.as_ref()),
        Command::Path { release } => commands::path::run(context, release),
        Command::Ps => commands::ps::run(context),
        Command::Pin { release, days, until, .. } => {
            let pin = pin(*days, until.as_deref(), context.actor.clock)?;
            commands::pin::run(context, release, Some(pin))
        }
        Command::Unpin { release } => commands::pin::run(context, release, None),
        Command::Remove { releases } => commands::remove::run(context, releases),
        Command::Exec { release, command } => Err(commands::exec::run(context, release, command)?),
        Command::Manage { release, arguments } => Err(commands::manage::run(context, release, arguments)?),
        Command::Task { name, release } => Err(commands::task::run(context, release, name)?),
        Command::Restart(programs) => commands::restart::run(context, &programs.names),
        Command::Start(programs) => commands::start::run(context, &programs.names),
        Command::Stop(programs) => commands::stop::run(context, &programs.names),
        Command::Supervisorctl { arguments } => Err(commands::supervisorctl::run(context, arguments)?),
        Command::Supervisor { verb } => supervisor(context, verb),
        Command::Hotfix { r#ref, patch, reverse } => hotfix(context, r#ref.as_ref(), patch.as_ref(), *reverse),
        Command::Verify { release } => commands::verify::run(context, release),
        Command::Export { release } => export(context, release),
        Command::Deactivate { yes } => commands::deactivate::run(context, *yes),
        Command::Doctor => commands::doctor::run(context),
        Command::Gate { .. } | Command::Completions { .. } => {
            Err(Error::new(error::Kind::Usage, format!("{} needs no tree", command.name())))
        }
    }
}

fn export(context: &Context, release: &Target) -> Result<Outcome> {
    let out = io::stdout();
    let terminal = out.is_terminal();
    commands::export::run(context, release, &mut out.lock(), terminal)
}

fn supervisor(context: &Context, verb: &SupervisorVerb) -> Result<Outcome> {
    let verb = match verb {
        SupervisorVerb::Render { release } => Verb::Render(release.clone()),
        SupervisorVerb::Wire => Verb::Wire,
        SupervisorVerb::Unwire => Verb::Unwire,
        SupervisorVerb::Status => Verb::Status,
    };
    commands::supervisor::run(context, &verb)
}

fn hotfix(context: &Context, reference: Option<&String>, patch: Option<&PathBuf>, reverse: bool) -> Result<Outcome> {
    let change = match reference {
        Some(reference) => Change::Ref(reference.clone()),
        None => Change::Patch { file: patch.cloned().unwrap_or_default(), reverse },
    };
    commands::hotfix::run(context, &change)
}

fn create(source: &SourceArgs, anyway: bool) -> Create {
    let kind = source.kind.map(|kind| match kind {
        Kind::Git => SourceKind::Git,
        Kind::Dir => SourceKind::Dir,
        Kind::Tar => SourceKind::Tar,
    });
    let (reference, keep_days) = (source.r#ref.clone(), source.keep_days);
    let manner = Manner { no_python: source.no_python, anyway };
    Create { source: source.source.clone(), kind, reference, keep_days, manner, ..Create::default() }
}

fn pin(days: Option<u64>, until: Option<&str>, clock: Clock) -> Result<Pin> {
    match (days, until) {
        (Some(days), _) => Ok(Pin::for_days(days, clock.now())?),
        (None, Some(text)) => {
            let moment = Timestamp::parse(text).and_then(Pin::until);
            let wrong = || Error::new(error::Kind::Usage, format!("{text:?} is not a time"));
            moment.ok_or_else(|| wrong().hint("write 2026-12-02, 2026-12-02_23.40 or 2026-12-02T23:40:00Z"))
        }
        (None, None) => Ok(Pin::Forever),
    }
}

/// Finds the tree and becomes whoever owns it.
fn context(global: &Global, arguments: &[OsString], key: Option<&str>) -> Result<Context> {
    let wanted = global.wanted();
    let config = Config::load(&wanted)?;
    // What no option named the host's file did.
    let kind = if wanted.root.is_some() { error::Kind::Usage } else { error::Kind::Configuration };
    let root = whole(&config.root).map_err(|error| Error { kind, ..error })?;
    let from_root = identity::is_root();
    let by = identity::caller(std::env::var("SUDO_USER").ok());
    let by = key.map_or(by.clone(), |key| format!("{by} ({key})"));
    let mut tools = Tools::new(std::env::vars_os(), from_root);
    if let Some(account) = owner(&config, &root, from_root, &tools)? {
        identity::assume(&account)?;
        tools = tools.of_user(&account.name, &account.home);
    }
    config.refuse_unsafe_hooks()?;
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let actor = Actor { by, command: typed(arguments), host, clock: Clock::System };
    let wait = match global.wait {
        None => Wait::No,
        Some(None) => Wait::Forever,
        Some(Some(limit)) => Wait::For(limit),
    };
    let stages = Box::new(Progress::new(global.quiet, global.verbose));
    Ok(Context { config, root, from_root, tools, actor, wait, stages })
}

/// Who a root run becomes: the configured user, or whoever the tree belongs to.
fn owner(config: &Config, root: &Path, from_root: bool, tools: &Tools) -> Result<Option<Account>> {
    if !from_root {
        return Ok(None);
    }
    if let Some(name) = &config.settings.user {
        return Ok(Some(identity::account(name, tools)?).filter(|account| !account.uid.is_root()));
    }
    let Some(tree) = std::fs::symlink_metadata(root).ok().filter(|tree| tree.uid() != 0) else { return Ok(None) };
    let nameless = || {
        let (uid, gid) = (Uid::from_raw(tree.uid()), Gid::from_raw(tree.gid()));
        Account { name: tree.uid().to_string(), uid, gid, home: PathBuf::from("/") }
    };
    Ok(Some(identity::account_of(tree.uid(), tools).unwrap_or_else(nameless)))
}

/// A root as an absolute path without links; what is not there yet is taken word for word.
fn whole(root: &Path) -> Result<PathBuf> {
    let wrong = |why: String| {
        let message = format!("{} cannot be a tree's root: {why}", root.display());
        Error::new(error::Kind::Usage, message).hint("name a directory of the tree's own, such as /srv/app")
    };
    if root.as_os_str().is_empty() {
        let message = "no tree is named: --root, RELEASECTL_ROOT or root in the host's file is empty";
        return Err(Error { message: message.to_owned(), ..wrong(String::new()) });
    }
    let absolute = std::path::absolute(root).map_err(|cause| wrong(cause.to_string()))?;
    let existing = absolute.ancestors().find(|path| path.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
    let real = std::fs::canonicalize(existing).map_err(|cause| match std::fs::read_link(existing) {
        Ok(target) if cause.kind() == std::io::ErrorKind::NotFound => {
            let why = format!("{} leads to {}, which is not there", existing.display(), target.display());
            wrong(why).hint("see whether its disk is mounted")
        }
        _ => wrong(cause.to_string()),
    })?;
    let rest = absolute.strip_prefix(existing).unwrap_or(Path::new(""));
    if rest.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(wrong("it goes up from a directory that is not there".to_owned()));
    }
    let whole = if rest.as_os_str().is_empty() { real } else { real.join(rest) };
    if let Some(tree) = Layout::around(&whole, |path| path.symlink_metadata().is_ok()) {
        let message = format!("{} cannot be a tree's root: it lies within another tree", whole.display());
        return Err(Error::new(error::Kind::Usage, message).hint(format!("name that tree: --root {}", tree.display())));
    }
    if whole == Path::new("/") {
        return Err(wrong("it is the root of the file system".to_owned()));
    }
    // Neither a document nor supervisord's files could name it.
    if whole.to_str().is_some() { Ok(whole) } else { Err(wrong("it is not UTF-8".to_owned())) }
}

/// The command line for the lock's note.
fn typed(arguments: &[OsString]) -> String {
    let words: Vec<_> = arguments.iter().skip(1).map(|word| without_password(&word.to_string_lossy())).collect();
    let typed = format!("releasectl {}", words.join(" "));
    typed.chars().filter(|c| !c.is_control()).take(300).collect()
}
