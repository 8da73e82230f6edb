//! The `holdfast-bench` binary.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use bench::error::Error;
use bench::judge::{Judgement, judge};
use bench::options::{CheckOptions, Cli, Command, RunOptions, WholeOptions};
use bench::run::run;
use bench::whole::{self, Act};
use clap::Parser;
use tests::check::Verdict;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(options) => run_and_report(options),
        Command::Check(options) => check_and_report(&options),
        Command::Fill(options) => go_over_and_report(options, Act::Fill),
        Command::Verify(options) => go_over_and_report(options, Act::Verify),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("holdfast-bench: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run_and_report(options: RunOptions) -> Result<ExitCode, Error> {
    let plan = options.plan()?;
    let json = plan.json;
    let report = run(plan)?;
    if json {
        print(&serde_json::to_string(&report).expect("a report is plain data"))?;
    } else {
        print(report.to_string().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn go_over_and_report(options: WholeOptions, act: Act) -> Result<ExitCode, Error> {
    let plan = options.plan(act)?;
    let report = whole::run(&plan)?;
    if plan.json {
        print(&serde_json::to_string(&report).expect("a report is plain data"))?;
    } else {
        print(&report.to_string())?;
    }
    Ok(if report.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_and_report(options: &CheckOptions) -> Result<ExitCode, Error> {
    let Judgement { operations, unknown, verdict } = judge(options)?;
    let file = options.file.display();
    match verdict {
        Verdict::Ok => {
            print(&format!("ok: {file}: {operations} operations, {unknown} of unknown outcome"))?;
            Ok(ExitCode::SUCCESS)
        }
        Verdict::Illegal { key, explanation } => {
            print(&format!("illegal: {file}: key {key}: {explanation}"))?;
            Ok(ExitCode::FAILURE)
        }
        Verdict::Unknown { reason } => {
            print(&format!("not shown: {file}: {reason}"))?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn print(text: &str) -> Result<(), Error> {
    writeln!(io::stdout(), "{text}").map_err(Error::Output)
}
