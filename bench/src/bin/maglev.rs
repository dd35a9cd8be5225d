//! `maglev [FILTER]`: what it costs to build a Maglev table of a thousand backends.
//!
//! A line a bench: name, median, spread (least to most), unit. `equal` weights are those of one Service,
//! `two` those of two with shares of 70 and 30, `distinct` the worst that can be asked for.

use std::hint::black_box;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Instant;

use penstock_forward::maglev::{Weighted, build};

const ROUNDS: u8 = 41;
const BACKENDS: u16 = 1000;

type Weight = fn(u16) -> u32;

fn main() -> std::io::Result<()> {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let mut out = std::io::stdout();
    let weights: [(&str, Weight); 3] = [
        ("equal", |_| 1),
        ("two", |n| if n % 2 == 0 { 7 } else { 3 }),
        ("distinct", |n| 1000 + u32::from(n)),
    ];
    for size in [65_537, 655_373] {
        for (kind, weight) in weights {
            let name = format!("maglev_build/{size}_slots/1000_backends/{kind}_weights");
            if name.contains(&filter) {
                let [least, median, most] = time(size, weight);
                writeln!(out, "{name:60} {median:7.3}  ({least:.3}-{most:.3})  ms")?;
            }
        }
    }
    Ok(())
}

/// Least, median and most of the rounds, in milliseconds. Each is of other backends, so that no branch
/// predictor knows the table.
fn time(size: usize, weight: Weight) -> [f64; 3] {
    let mut slots = vec![0; size];
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|round| {
            let backend = |n: u16| {
                let [high, low] = n.to_be_bytes();
                Weighted::backend(SocketAddr::from(([10, round, high, low], 8080)), weight(n))
            };
            let members: Vec<Weighted> = (0..BACKENDS).map(backend).collect();
            let begin = Instant::now();
            let built = build(black_box(&mut slots), black_box(&members));
            assert!(built.is_ok(), "{built:?}");
            begin.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    [rounds[0], rounds[rounds.len() / 2], rounds[rounds.len() - 1]]
}
