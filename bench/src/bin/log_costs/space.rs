//! Bytes written for each byte of keys and values.

use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use engine::Status;

use crate::driver::{Driver, Live, entry};

const KEYS: u64 = 100_000;
const KEY_BYTES: u64 = 24;
const VALUE_BYTES: usize = 1024;
const COMMANDS: [u64; 4] = [1, 8, 64, 256];
/// Log bytes between two checkpoints, and the size of one: what 100,000 keys take.
const INTERVAL_BYTES: u64 = 256 << 20;
const CHECKPOINT_BYTES: u64 = KEYS * 80;

/// What was written so far.
#[derive(Clone, Copy)]
struct Written {
    frames: u64,
    padding: u64,
    prewritten: u64,
    checkpoints: u64,
    /// By the device, for whatever reason.
    device: u64,
}

impl Written {
    fn look(driver: &Driver) -> io::Result<Written> {
        let Status { frame_bytes, padding_bytes, prewrite_bytes, checkpoint_bytes, .. } =
            driver.status();
        Ok(Written {
            frames: frame_bytes,
            padding: padding_bytes,
            prewritten: prewrite_bytes,
            checkpoints: checkpoint_bytes,
            device: device_bytes(driver.dir())?,
        })
    }
}

/// Overwrites keys one after the other, one entry a frame.
pub(crate) fn measure(dir: &Path, user_bytes: u64) -> io::Result<String> {
    let mut driver = Driver::new(dir)?;
    let mut live = Live::default();
    let mut next = 0;
    // Until slots recycle.
    run(&mut driver, &mut live, &mut next, 64, 8 * INTERVAL_BYTES)?;
    let mut table = String::from(
        "commands a frame | log / user | padding / log | pre-written / log | checkpoints / log | counters / device\n",
    );
    for commands in COMMANDS {
        // Until frames of this size hold every key: padding among live values takes slots, too.
        settle(&mut driver, &mut live, &mut next, commands)?;
        let before = Written::look(&driver)?;
        let user = run(&mut driver, &mut live, &mut next, commands, user_bytes)?;
        let after = Written::look(&driver)?;
        line(&mut table, commands, user, &before, &after);
    }
    Ok(table)
}

#[expect(clippy::cast_precision_loss, reason = "ratios are for people")]
fn line(table: &mut String, commands: u64, user: u64, before: &Written, after: &Written) {
    let log = (after.frames - before.frames) as f64;
    let padding = (after.padding - before.padding) as f64;
    let prewritten = (after.prewritten - before.prewritten) as f64;
    let checkpoints = (after.checkpoints - before.checkpoints) as f64;
    let device = (after.device - before.device) as f64;
    let ratios = [
        log / user as f64,
        padding / log,
        prewritten / log,
        checkpoints / log,
        (log + prewritten + checkpoints) / device,
    ];
    let ratios: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.3}")).collect();
    writeln!(table, "{commands} | {}", ratios.join(" | ")).expect("a string takes all");
}

/// Overwrites every key four times.
fn settle(driver: &mut Driver, live: &mut Live, next: &mut u64, commands: u64) -> io::Result<()> {
    let end = *next + 4 * KEYS;
    while *next < end {
        step(driver, live, next, commands)?;
    }
    Ok(())
}

/// Writes until so many bytes of keys and values are durable; how many they were.
fn run(
    driver: &mut Driver,
    live: &mut Live,
    next: &mut u64,
    commands: u64,
    user_bytes: u64,
) -> io::Result<u64> {
    let mut user = 0;
    // Small frames take long: a tenth of the bytes is enough to tell their ratio.
    let wanted = if commands < 64 { user_bytes / 10 } else { user_bytes };
    while user < wanted {
        step(driver, live, next, commands)?;
        user += commands * (KEY_BYTES + VALUE_BYTES as u64);
    }
    while driver.is_checkpointing() {
        driver.wait(std::time::Duration::from_millis(100));
        driver.turn()?;
    }
    Ok(user)
}

/// One durable entry, and the checkpoint that may be due after it.
fn step(driver: &mut Driver, live: &mut Live, next: &mut u64, commands: u64) -> io::Result<()> {
    let payload = entry(*next, commands, KEYS, VALUE_BYTES);
    let write = driver.append(&payload);
    driver.wait_for(write)?;
    let place = driver.engine.place(driver.last.index).expect("it is durable");
    (*next..*next + commands).for_each(|number| live.put(number % KEYS, place.slot()));
    driver.engine.forget_places_upto(driver.last.index);
    *next += commands;
    if driver.engine.log_bytes_since_checkpoint() > INTERVAL_BYTES {
        driver.begin_checkpoint(CHECKPOINT_BYTES, live.slots());
    }
    Ok(())
}

/// Bytes that the device of this directory has written since it was there, by its own count of sectors.
fn device_bytes(dir: &Path) -> io::Result<u64> {
    let device = std::fs::metadata(dir)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))?;
    let sectors = stat.split_whitespace().nth(6).and_then(|field| field.parse::<u64>().ok());
    let sectors = sectors.ok_or_else(|| io::Error::other("the device states no sectors"))?;
    Ok(sectors * 512)
}
