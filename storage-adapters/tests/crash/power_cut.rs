//! What a disk may hold after a power cut: everything synced, and any part of what was not.

use crate::disk::Event;
use crate::disk_image::{Effect, Image, Part, Place};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Whether a sync makes durable what was written before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncs {
    Honoured,
    /// The control: a harness that finds nothing on such a disk finds nothing at all.
    Ignored,
    /// The same for one part alone.
    IgnoredOn(Part),
}

impl Syncs {
    fn honours(self, place: Place) -> bool {
        match self {
            Self::Honoured => true,
            Self::Ignored => false,
            Self::IgnoredOn(ignored) => ignored != place.part(),
        }
    }
}

/// Which of the effects without a sync a power cut takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    Everything,
    Nothing,
    /// All but this one survive.
    OneLost(usize),
    /// Only this one survives.
    OneKept(usize),
    /// So many survive, those behind them are lost: a disk that keeps the order.
    Prefix(usize),
    /// All survive, of the last only some sectors.
    LastTorn(u64),
    /// Each survives, or not, or in part, by a throw of dice.
    Random(u64),
}

impl Loss {
    /// Every loss of a moment with so many effects without a sync, and `random` thrown ones.
    pub fn all(pending: usize, seed: u64, random: u64) -> Vec<Self> {
        if pending == 0 {
            return vec![Self::Nothing];
        }
        let mut losses = vec![Self::Everything, Self::Nothing, Self::LastTorn(seed)];
        if pending > 1 {
            losses.extend((0..pending).flat_map(|one| [Self::OneLost(one), Self::OneKept(one)]));
            losses.extend((1..pending).map(Self::Prefix));
            losses.extend((0..random).map(|number| Self::Random(seed ^ (number << 32))));
        }
        losses
    }
}

/// What became of the effects without a sync.
#[derive(Debug, Clone, Copy, Default)]
pub struct Damage {
    pub lost: u64,
    /// Of those: changes of names in the log's directory, and of lengths.
    pub names_lost: u64,
    pub growths_lost: u64,
    pub torn: u64,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

/// A run up to some event: what is safe on the disk, and what is not.
#[derive(Debug)]
pub struct Moment<'a> {
    /// Number of the next event.
    pub position: usize,
    durable: Image,
    pending: Vec<(Place, &'a Effect)>,
    syncs: Syncs,
}

impl<'a> Moment<'a> {
    /// Before the first event of a run on a disk that held `image`.
    pub fn before(image: Image, syncs: Syncs) -> Self {
        Self { position: 0, durable: image, pending: Vec::new(), syncs }
    }

    /// Takes the next event in.
    pub fn pass(&mut self, event: &'a Event) {
        self.position += 1;
        match event {
            Event::Effect(place, Effect::Sync) if self.syncs.honours(*place) => self.sync(*place),
            Event::Effect(_, Effect::Sync) => {}
            // The worst that a failed sync can mean: the pages are clean now, and were never written.
            Event::Effect(failed, Effect::FailedSync) => self.pending.retain(|(place, _)| place != failed),
            Event::Effect(place, effect) => self.pending.push((*place, effect)),
            _ => {}
        }
    }

    /// Effects without a sync.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn sync(&mut self, synced: Place) {
        for (place, effect) in &self.pending {
            if *place == synced {
                self.durable.apply(*place, effect);
            }
        }
        self.pending.retain(|(place, _)| *place != synced);
    }

    /// The disk after a cut at this moment.
    pub fn cut(&self, loss: Loss) -> (Image, Damage) {
        let mut image = self.durable.clone();
        let mut damage = Damage::default();
        let last = self.pending.len().saturating_sub(1);
        let mut dice = Dice::new(match loss {
            Loss::LastTorn(seed) | Loss::Random(seed) => seed,
            _ => 0,
        });
        for (number, (place, effect)) in self.pending.iter().enumerate() {
            let fate = match loss {
                Loss::Nothing => Fate::Kept,
                Loss::Everything => Fate::Lost,
                Loss::OneLost(one) if one == number => Fate::Lost,
                Loss::OneLost(_) => Fate::Kept,
                Loss::OneKept(one) if one == number => Fate::Kept,
                Loss::OneKept(_) => Fate::Lost,
                Loss::Prefix(kept) if number < kept => Fate::Kept,
                Loss::Prefix(_) => Fate::Lost,
                Loss::LastTorn(_) if number == last => Fate::Torn,
                Loss::LastTorn(_) => Fate::Kept,
                Loss::Random(_) => [Fate::Kept, Fate::Lost, Fate::Torn, Fate::Kept][dice.below(4)],
            };
            match (fate, effect) {
                (Fate::Kept, effect) => image.apply(*place, effect),
                (Fate::Torn, Effect::Write { offset, data }) if spans_sectors(*offset, data.len()) => {
                    tear(&mut image, *place, (*offset, data), &mut dice);
                    damage.torn += 1;
                }
                // A change of the length or of a name and a write within one sector happen or do not.
                (Fate::Lost | Fate::Torn, effect) => {
                    damage.lost += 1;
                    damage.names_lost += u64::from(*place == Place::LogNames);
                    damage.growths_lost += u64::from(matches!(effect, Effect::SetLength(_)));
                }
            }
        }
        (image, damage)
    }
}

fn spans_sectors(offset: usize, length: usize) -> bool {
    length > 0 && offset / SECTOR_BYTES != (offset + length - 1) / SECTOR_BYTES
}

/// Writes some sectors of a write and not the others; at least one is missing.
fn tear(image: &mut Image, place: Place, (offset, data): (usize, &[u8]), dice: &mut Dice) {
    let first = offset / SECTOR_BYTES;
    let sectors = (offset + data.len()).div_ceil(SECTOR_BYTES) - first;
    let missing = dice.below(sectors);
    // Half of the tears are clean cuts: a disk often writes in order.
    let in_order = dice.below(2) == 0;
    for sector in 0..sectors {
        let survives = sector != missing && if in_order { sector < missing } else { dice.below(2) == 0 };
        if survives {
            let from = ((first + sector) * SECTOR_BYTES).max(offset);
            let to = ((first + sector + 1) * SECTOR_BYTES).min(offset + data.len());
            image.put(place, from, &data[from - offset..to - offset]);
        }
    }
}

/// Numbers that a seed repeats (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).expect("the limit fits")
    }
}
