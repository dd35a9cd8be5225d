//! Ids for the datagrams that one worker carries.

/// Ids that no other worker of the box gives, each once before any comes again, in an order that needs the
/// secret to foretell (RFC 7739 §5 tells why it should).
#[derive(Debug)]
pub(super) struct Ids {
    worker: u32,
    /// Bits of an id that name the worker: the highest.
    worker_bits: u32,
    start: u32,
    /// Odd, so that counting in steps of it meets every number.
    step: u32,
    given: u32,
}

impl Ids {
    pub(super) fn new(worker: u8, workers: u8, secret: u64) -> Self {
        let worker_bits = u32::from(workers.max(1)).next_power_of_two().trailing_zeros();
        let (start, step) = ((secret >> 32) as u32, secret as u32 | 1);
        Self { worker: worker.into(), worker_bits, start, step, given: 0 }
    }

    /// The next id of so many bits: 16 for IPv4, 32 for IPv6.
    pub(super) fn next(&mut self, bits: u32) -> u32 {
        self.given = self.given.wrapping_add(1);
        let number = self.start.wrapping_add(self.given.wrapping_mul(self.step));
        let own_bits = bits - self.worker_bits;
        let own = number & (u64::from(u32::MAX) >> (32 - own_bits)) as u32;
        own | self.worker.checked_shl(own_bits).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_id_comes_twice_before_all_have_come() {
        for workers in [1_u8, 2, 3, 8, 255] {
            let bits = u32::from(workers).next_power_of_two().trailing_zeros();
            let each = 1 << (16 - bits);
            let mut all = HashSet::new();
            for worker in 0..workers {
                let mut ids = Ids::new(worker, workers, 0x1234_5678_9abc_def0);
                let given: HashSet<u32> = (0..each).map(|_| ids.next(16)).collect();
                assert_eq!(given.len(), each, "worker {worker} of {workers}");
                assert!(given.iter().all(|id| *id <= 0xffff && all.insert(*id)));
            }
        }
        let mut ids = Ids::new(0, 1, 7);
        assert_eq!((0..1000).map(|_| ids.next(32)).collect::<HashSet<_>>().len(), 1000);
    }
}
