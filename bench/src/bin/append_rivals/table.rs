//! Figures of rounds, and one table of medians and ratios.

use std::collections::BTreeMap;
use std::fmt;

use crate::work::{System, Work};

/// What one system did in one kind of work of one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) work: Work,
    pub(crate) system: System,
    /// Entries a second, or writes a second times the entries that such a write would hold.
    pub(crate) rate: f64,
    /// Bytes that reached the device a second, where they are known.
    pub(crate) bytes: f64,
}

/// All rounds.
#[derive(Default)]
pub(crate) struct Table {
    rounds: Vec<Round>,
}

type Round = BTreeMap<(Work, System), Figure>;

impl Table {
    pub(crate) fn add(&mut self, round: Vec<Figure>) {
        self.rounds.push(round.into_iter().map(|f| ((f.work, f.system), f)).collect());
    }

    /// One value of each round.
    fn of_rounds(&self, value: impl Fn(&Round) -> Option<f64>) -> Vec<f64> {
        self.rounds.iter().filter_map(value).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} rounds, medians; ratios: median (lowest to highest) of the rounds\n",
            self.rounds.len()
        )?;
        writeln!(f, "| work | system | entries/s | MB/s to the disk | holdfast ÷ this |")?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        for &(work, system) in self.rounds.first().into_iter().flat_map(BTreeMap::keys) {
            let rate = median(self.of_rounds(|round| Some(round.get(&(work, system))?.rate)));
            let bytes = median(self.of_rounds(|round| Some(round.get(&(work, system))?.bytes)));
            let ratios = self.of_rounds(|round| {
                let (ours, other) =
                    (round.get(&(work, System::Holdfast))?, round.get(&(work, system))?);
                Some(if system == System::Raw {
                    ours.bytes / other.bytes
                } else {
                    ours.rate / other.rate
                })
            });
            write!(f, "| {} | {} | {rate:.0} | ", work.name(), system.name())?;
            if bytes > 0.0 {
                write!(f, "{:.1}", bytes / 1e6)?;
            }
            write!(f, " | ")?;
            if system != System::Holdfast && !ratios.is_empty() {
                let lowest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
                let highest = ratios.iter().copied().fold(0.0, f64::max);
                write!(f, "{:.2} ({lowest:.2} to {highest:.2})", median(ratios))?;
            }
            writeln!(f, " |")?;
        }
        Ok(())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
