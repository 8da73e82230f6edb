//! Deliberate bugs to run with: the simulator is tested by what it finds.
//!
//! With the feature `mutants` the ones of the consensus core can be chosen, by the names they have there. Two more are
//! disks that lie, which no software can survive: they show that the oracle notices what is lost.

/// One deliberate bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// Some writes of every disk report success and change nothing.
    DiskLosesWrites,
    /// A power cut drops everything that completed since the last start of the process.
    DiskForgetsAtCrash,
    /// One of the consensus core.
    #[cfg(feature = "mutants")]
    Raft(raft::Mutant),
}

impl Mutant {
    /// Every mutant of this build.
    pub fn all() -> Vec<Mutant> {
        #[cfg_attr(
            not(feature = "mutants"),
            expect(unused_mut, reason = "the other build adds to it")
        )]
        let mut all = vec![Mutant::DiskLosesWrites, Mutant::DiskForgetsAtCrash];
        #[cfg(feature = "mutants")]
        all.extend(raft::Mutant::ALL.map(Mutant::Raft));
        all
    }

    /// The mutant of this name.
    pub fn by_name(name: &str) -> Option<Mutant> {
        Mutant::all().into_iter().find(|mutant| mutant.name() == name)
    }

    /// Its name.
    pub fn name(self) -> String {
        match self {
            Mutant::DiskLosesWrites | Mutant::DiskForgetsAtCrash => format!("{self:?}"),
            #[cfg(feature = "mutants")]
            Mutant::Raft(mutant) => format!("{mutant:?}"),
        }
    }

    /// Makes a consensus core behave accordingly.
    pub fn arm(self, config: &mut raft::Config) {
        match self {
            Mutant::DiskLosesWrites | Mutant::DiskForgetsAtCrash => {}
            #[cfg(feature = "mutants")]
            Mutant::Raft(mutant) => config.mutant = Some(mutant),
        }
        let _: &raft::Config = config;
    }
}
