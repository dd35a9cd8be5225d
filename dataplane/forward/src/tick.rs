//! Time as a worker sees it: milliseconds in 32 bits, which wrap after 49.7 days.

/// A moment in milliseconds since an arbitrary start. Wraps; only differences mean anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick(pub u32);

impl Tick {
    /// Milliseconds from `earlier` to `self`, right as long as they are less than 24.8 days apart;
    /// 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Tick) -> u32 {
        let ms = self.0.wrapping_sub(earlier.0);
        if ms > u32::MAX / 2 { 0 } else { ms }
    }

    /// The moment `ms` later.
    #[must_use]
    pub const fn plus_ms(self, ms: u32) -> Tick {
        Tick(self.0.wrapping_add(ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_across_the_wrap() {
        let before = Tick(u32::MAX - 9);
        assert_eq!(before.plus_ms(30), Tick(20));
        assert_eq!(Tick(20).since(before), 30);
        assert_eq!(before.since(Tick(20)), 0, "what is yet to come is no time ago");
    }
}
