//! Counts of what really happened: a campaign in which nothing did has shown nothing.

/// What a campaign did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Moments at which the power was cut.
    pub crash_points: u64,
    /// Cuts: several per moment, each with another loss.
    pub cuts: u64,
    pub writes_lost: u64,
    pub writes_torn: u64,
    /// Of what was lost: changes of names in the log's directory, and of lengths of files.
    pub names_lost: u64,
    pub growths_lost: u64,
    /// Nodes that were opened on what was left, and held.
    pub recoveries: u64,
    /// Cuts during a recovery from a cut, and during a recovery from that.
    pub second_cuts: u64,
    pub third_cuts: u64,
    /// Acknowledged writes that were read again.
    pub acknowledged: u64,
    /// Acknowledged writes that were sent again and answered the same.
    pub retries: u64,
    /// Published checkpoints that the recovered log extends.
    pub checkpoints: u64,
    /// Recovered logs with a vote, and signing marks in them: each as it was written.
    pub votes: u64,
    pub marks: u64,
    /// Batches of the log that were under way and survived whole, or not at all.
    pub log_batches_rescued: u64,
    pub log_batches_cut: u64,
    /// Calls of the disk that were made to fail, and nodes that stopped by them.
    pub faults: u64,
    pub stops: u64,
    /// Nodes that came to their end in order: what failed was made ready for later, and never needed.
    pub outlived: u64,
    /// Broken promises.
    pub violations: u64,
}

impl Tally {
    fn named(&self) -> Vec<(&'static str, u64)> {
        let Self {
            crash_points,
            cuts,
            writes_lost,
            writes_torn,
            names_lost,
            growths_lost,
            recoveries,
            second_cuts,
            third_cuts,
            acknowledged,
            retries,
            checkpoints,
            votes,
            marks,
            log_batches_rescued,
            log_batches_cut,
            faults,
            stops,
            outlived,
            violations,
        } = *self;
        vec![
            ("crash points", crash_points),
            ("cuts", cuts),
            ("during a recovery", second_cuts),
            ("during that one's", third_cuts),
            ("writes lost", writes_lost),
            ("writes torn", writes_torn),
            ("names lost", names_lost),
            ("growths lost", growths_lost),
            ("recoveries", recoveries),
            ("acknowledged writes read", acknowledged),
            ("retries", retries),
            ("checkpoints extended", checkpoints),
            ("votes", votes),
            ("signing marks", marks),
            ("log batches rescued", log_batches_rescued),
            ("log batches cut", log_batches_cut),
            ("calls failed", faults),
            ("nodes stopped", stops),
            ("failed calls that no commit needed", outlived),
            ("violations", violations),
        ]
    }

    pub fn add(&mut self, other: &Self) {
        self.crash_points += other.crash_points;
        self.cuts += other.cuts;
        self.writes_lost += other.writes_lost;
        self.writes_torn += other.writes_torn;
        self.names_lost += other.names_lost;
        self.growths_lost += other.growths_lost;
        self.recoveries += other.recoveries;
        self.second_cuts += other.second_cuts;
        self.third_cuts += other.third_cuts;
        self.acknowledged += other.acknowledged;
        self.retries += other.retries;
        self.checkpoints += other.checkpoints;
        self.votes += other.votes;
        self.marks += other.marks;
        self.log_batches_rescued += other.log_batches_rescued;
        self.log_batches_cut += other.log_batches_cut;
        self.faults += other.faults;
        self.stops += other.stops;
        self.outlived += other.outlived;
        self.violations += other.violations;
    }

    /// The line that `scripts/soak` puts into its table.
    pub fn report(&self, campaign: &str, runs: u64) {
        let counters = self.named().into_iter().filter(|(name, count)| *count > 0 || *name == "violations");
        let counters = counters.map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>();
        println!("\nsoak: {campaign} | {runs} | {}", counters.join(", "));
    }
}
