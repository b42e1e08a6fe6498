//! The recipe's steps: whether one is called for, its command with retries and a time limit, the programs it stops and
//! starts.

use crate::clock::seconds_since;
use crate::recipe::{Phase, Settings, Step};
use crate::release::{StepRecord, StepStatus};
use crate::tools::{Sink, ToolError};
use crate::workplace::Workplace;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// The longest one run of a step may take if the recipe says nothing.
const LIMIT: Duration = Duration::from_secs(3600);
/// What a shell says of a command that may not be run, is not there, or was killed by one of the signals there are.
const UNANSWERED: RangeInclusive<i32> = 126..=192;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Its command did.
    #[error("step {name}: {cause}")]
    Command {
        /// The step.
        name: String,
        /// How.
        cause: ToolError,
    },
    /// Its programs could not be stopped or started.
    #[error("step {name}: {cause}")]
    Programs {
        /// The step.
        name: String,
        /// Why.
        cause: String,
    },
}

/// Stopping and starting this environment's programs, for steps that ask for it.
pub trait Programs {
    /// Stops programs or groups, and waits until they are.
    fn stop(&mut self, names: &[String]) -> Result<(), String>;
    /// Starts them, and waits until they run.
    fn start(&mut self, names: &[String]) -> Result<(), String>;
}

/// The steps of one phase that this host's roles call for, in the recipe's order.
pub fn of_phase(settings: &Settings, phase: Phase) -> impl Iterator<Item = &Step> {
    let here = |step: &&Step| step.roles.is_empty() || step.roles.iter().any(|role| settings.roles.contains(role));
    settings.step.iter().filter(move |step| step.phase == phase).filter(here)
}

/// Runs one step. What it stops is stopped before its command and what it starts is started after it.
pub fn run(
    step: &Step,
    place: &Workplace,
    programs: &mut dyn Programs,
    sink: &mut Sink<'_>,
) -> Result<StepRecord, StepError> {
    let started = Instant::now();
    let named = |cause| StepError::Command { name: step.name.clone(), cause };
    if !is_called_for(step, place, sink).map_err(named)? {
        return Ok(record(&step.name, StepStatus::Skipped, started));
    }
    let programs_failed = |cause| StepError::Programs { name: step.name.clone(), cause };
    if !step.stop.is_empty() {
        programs.stop(&step.stop).map_err(programs_failed)?;
    }
    if let Some(command) = &step.run {
        repeat(step, command, place, sink).map_err(named)?;
    }
    if !step.start.is_empty() {
        programs.start(&step.start).map_err(programs_failed)?;
    }
    Ok(record(&step.name, StepStatus::Done, started))
}

/// Whether `only_if` succeeds. That it fails is an answer; that it cannot be run, hangs or is killed is not.
fn is_called_for(step: &Step, place: &Workplace, sink: &mut Sink<'_>) -> Result<bool, ToolError> {
    let Some(condition) = &step.only_if else { return Ok(true) };
    match place.shell::<&str>(condition, []).limit(limit(step)).run(sink) {
        Ok(()) => Ok(true),
        Err(ToolError::Failed { status, .. }) if status.code().is_some_and(|code| !UNANSWERED.contains(&code)) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Runs the command until it succeeds or the time for retries is up.
fn repeat(step: &Step, command: &str, place: &Workplace, sink: &mut Sink<'_>) -> Result<(), ToolError> {
    let started = Instant::now();
    loop {
        let outcome = place.shell::<&str>(command, []).limit(limit(step)).run(sink);
        let Some(retry) = step.retry else { return outcome };
        if outcome.is_ok() || started.elapsed() + retry.every.0 > retry.r#for.0 {
            return outcome;
        }
        std::thread::sleep(retry.every.0);
    }
}

fn limit(step: &Step) -> Duration {
    let own = step.timeout.map_or(LIMIT, |span| span.0);
    step.retry.map_or(own, |retry| own.min(retry.r#for.0))
}

/// The record of something that began at `started` and is over now.
pub fn record(name: &str, status: StepStatus, started: Instant) -> StepRecord {
    StepRecord { name: name.to_owned(), status, seconds: seconds_since(started) }
}
