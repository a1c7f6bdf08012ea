//! Where windows and calendar units begin on the wall clock.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp};
use ratelimit_core::algorithms::{Boundaries, CalendarUnit};
use ratelimit_core::{HORIZON_NS, Nanos};

use super::Problem;

/// The wall clock's time at the engine's epoch, since the beginning of 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub Duration);

impl Epoch {
    /// How long before the epoch the last window of this length began, counted from the beginning of 1970.
    pub(crate) fn phase(self, period: Duration) -> Duration {
        let nanoseconds = self.0.as_nanos().checked_rem(period.as_nanos()).unwrap_or(0);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
    }
}

/// Turns civil time into the engine's. Tables are made once for each unit and time zone.
pub(super) struct Civil {
    epoch: Epoch,
    zones: TimeZoneDatabase,
    made: BTreeMap<(u8, String), Boundaries>,
}

impl Civil {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self { epoch, zones: TimeZoneDatabase::bundled(), made: BTreeMap::new() }
    }

    /// See [`Epoch::phase`].
    pub(super) fn phase(&self, period: Duration) -> Duration {
        self.epoch.phase(period)
    }

    /// The beginnings of a unit in a time zone, from the one in which the epoch is to beyond the engine's horizon.
    pub(super) fn boundaries(&mut self, unit: CalendarUnit, zone: &str) -> Result<Boundaries, Problem> {
        let place = (unit as u8, zone.to_owned());
        if let Some(made) = self.made.get(&place) {
            return Ok(made.clone());
        }
        let unknown = || Problem::UnknownZone { zone: zone.to_owned() };
        let tz = self.zones.get(zone).map_err(|_| unknown())?;
        let name = tz.iana_name().unwrap_or(zone).to_owned();
        let starts = starts(self.epoch, unit, &tz).ok_or_else(unknown)?;
        let made = Boundaries::new(unit, &name, starts)?;
        self.made.insert(place, made.clone());
        Ok(made)
    }
}

/// `None` when the epoch is beyond what the calendar knows.
fn starts(epoch: Epoch, unit: CalendarUnit, tz: &TimeZone) -> Option<Vec<Nanos>> {
    let epoch_ns = i128::try_from(epoch.0.as_nanos()).ok()?;
    let date = Timestamp::from_nanosecond(epoch_ns).ok()?.to_zoned(tz.clone()).date();
    let mut first = first_day(unit, date)?;
    let mut starts = vec![Nanos(0)];
    loop {
        first = first.checked_add(length(unit)).ok()?;
        let start = first.to_zoned(tz.clone()).ok()?.timestamp().as_nanosecond().checked_sub(epoch_ns)?;
        let start = Nanos(u64::try_from(start).ok()?);
        starts.push(start);
        if start.0 > HORIZON_NS {
            return Some(starts);
        }
    }
}

/// The first day of the unit of a day.
fn first_day(unit: CalendarUnit, date: Date) -> Option<Date> {
    Some(match unit {
        CalendarUnit::Day => date,
        CalendarUnit::Week => {
            date.checked_sub(Span::new().days(i64::from(date.weekday().to_monday_zero_offset()))).ok()?
        }
        CalendarUnit::Month => date.first_of_month(),
        CalendarUnit::Quarter => Date::new(date.year(), (date.month() - 1) / 3 * 3 + 1, 1).ok()?,
        CalendarUnit::Year => date.first_of_year(),
    })
}

fn length(unit: CalendarUnit) -> Span {
    match unit {
        CalendarUnit::Day => Span::new().days(1),
        CalendarUnit::Week => Span::new().weeks(1),
        CalendarUnit::Month => Span::new().months(1),
        CalendarUnit::Quarter => Span::new().months(3),
        CalendarUnit::Year => Span::new().years(1),
    }
}
