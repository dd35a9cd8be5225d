//! Rise, fall and fail-open: whether a backend counts as well, by the answers it gave. No clock, no sockets.

/// How one backend stands by one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    rise: u8,
    fall: u8,
    healthy: bool,
    /// Answers in a row that speak against `healthy`.
    against: u8,
}

impl Standing {
    /// A backend that counts as `healthy` until answers speak against it: `rise` good ones in a row, or `fall` bad ones.
    #[must_use]
    pub fn new(rise: u8, fall: u8, healthy: bool) -> Self {
        Self { rise, fall, healthy, against: 0 }
    }

    /// Takes in an answer. Returns how the backend counts now, if that changed.
    pub fn take(&mut self, good: bool) -> Option<bool> {
        if good == self.healthy {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = if self.healthy { self.fall } else { self.rise };
        if self.against < needed {
            return None;
        }
        (self.healthy, self.against) = (good, 0);
        Some(good)
    }

    /// Whether it counts as well.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy
    }
}

/// Whether all of `backends` serve although `unhealthy` of them are not well: because none is, or because more than
/// `above_percent` of 100 are not, which is more likely the check's fault, or that of the way to them.
#[must_use]
pub fn fails_open(backends: usize, unhealthy: usize, above_percent: u8) -> bool {
    let too_many = unhealthy.saturating_mul(100) > backends.saturating_mul(above_percent.into());
    unhealthy > 0 && (too_many || unhealthy >= backends)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` and `-` are answers, `U` and `D` what they change: up and down.
    #[test]
    fn it_takes_so_many_answers_in_a_row() {
        for (promise, rise, fall, healthy, story) in [
            ("nothing changes while all is well", 2, 3, true, "+++"),
            ("as many bad answers as fall", 2, 3, true, "---D"),
            ("one less changes nothing", 2, 3, true, "--"),
            ("a good one between starts anew", 2, 3, true, "--+--+---D"),
            ("it stays down", 2, 3, true, "---D----"),
            ("as many good answers as rise", 2, 3, false, "++U"),
            ("a bad one between starts anew", 2, 3, false, "+-+-++U"),
            ("down and up again", 2, 3, true, "---D++U---D"),
            ("one is enough if so asked", 1, 1, true, "-D+U-D+U"),
            ("it begins where it was", 1, 1, false, "--+U"),
        ] {
            let mut standing = Standing::new(rise, fall, healthy);
            let mut told = String::new();
            for answer in story.chars().filter(|c| matches!(c, '+' | '-')) {
                told.push(answer);
                match standing.take(answer == '+') {
                    Some(true) => told.push('U'),
                    Some(false) => told.push('D'),
                    None => {}
                }
            }
            assert_eq!(told, story, "{promise}");
            let healthy = story.rfind(['U', 'D']).map_or(healthy, |at| &story[at..=at] == "U");
            assert_eq!(standing.is_healthy(), healthy, "{promise}");
        }
    }

    #[test]
    fn many_that_are_not_well_serve_all() {
        for (promise, backends, unhealthy, above_percent, open) in [
            ("all are well", 4, 0, 0, false),
            ("as many as the threshold", 4, 2, 50, false),
            ("one more", 4, 3, 50, true),
            ("the last one never goes", 1, 1, 100, true),
            ("none is well, whatever the threshold", 4, 4, 100, true),
            ("all but one, if so asked", 4, 3, 100, false),
            ("one is too many", 100, 1, 0, true),
            ("nobody is nobody", 0, 0, 0, false),
        ] {
            assert_eq!(fails_open(backends, unhealthy, above_percent), open, "{promise}");
        }
    }
}
