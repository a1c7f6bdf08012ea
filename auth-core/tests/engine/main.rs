//! The engine through its façade, over stores in memory: named defects of others, races, and a model of the whole.

mod audit;
mod model;
mod outbox;
mod passwords;
mod people;
mod races;
mod records;
mod refresh;
mod sessions;
mod world;
