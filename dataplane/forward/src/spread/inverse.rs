//! The L4 ports that bring a reply to a given entry of the RETA.
//!
//! The entry of a reply is what backend and SNAT address add, and what our L4 port adds: sixteen columns of the
//! hash, of which the low bits count. Where these have full rank (Gaussian elimination over GF(2)), each entry
//! has equally many ports: one *solution*, and that combined with everything that adds nothing, the *kernel*.
//! Both are tables, so the n-th port of a worker costs three loads, however many workers there are.

/// Tables of one address family: together 2 KiB at 128 entries.
#[derive(Clone, Debug)]
pub(super) struct Inverse {
    /// For every sum of low bits, an L4 port that adds it.
    solutions: Box<[u16]>,
    /// Every L4 port that adds nothing.
    kernel: Box<[u16]>,
}

/// The L4 ports of one worker for one pair of backend and SNAT address, in an order of their own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortsTo<'i> {
    inverse: &'i Inverse,
    /// The worker's entries.
    entries: &'i [u16],
    /// The entry that port 0 leads to.
    base: usize,
}

impl Inverse {
    /// `columns`: what each bit of the port adds, the lowest first; `entries`: a power of two, at most 2¹⁵.
    /// None if the columns have not full rank.
    pub(super) fn new(columns: &[u32; 16], entries: usize) -> Option<Self> {
        let (mut basis, mut kernel): (Vec<(usize, u16)>, _) = (Vec::new(), vec![0]);
        for (bit, column) in columns.iter().enumerate() {
            let (rest, port) = reduce(&basis, *column as usize & (entries - 1));
            let port = port ^ 1 << bit;
            if rest == 0 {
                kernel.extend_from_within(..);
                let half = kernel.len() / 2;
                kernel[half..].iter_mut().for_each(|nothing| *nothing ^= port);
            } else {
                basis.push((rest, port));
            }
        }
        let solve = |sum| {
            let (rest, port) = reduce(&basis, sum);
            (rest == 0).then_some(port)
        };
        let solutions = (0..entries).map(solve).collect::<Option<_>>()?;
        Some(Self { solutions, kernel: kernel.into() })
    }

    /// The ports that lead to one of `entries`, where port 0 leads to `base`.
    pub(super) fn ports_to<'i>(&'i self, entries: &'i [u16], base: usize) -> PortsTo<'i> {
        PortsTo { inverse: self, entries, base }
    }
}

/// What is left of a sum when every vector of the basis that makes it smaller is added, and the port that
/// adds what went. Each vector's highest bit is none of a later one's, so what is left is 0 if it can be.
fn reduce(basis: &[(usize, u16)], sum: usize) -> (usize, u16) {
    basis.iter().fold((sum, 0), |(rest, port), (vector, adds)| {
        if rest ^ vector < rest { (rest ^ vector, port ^ adds) } else { (rest, port) }
    })
}

impl PortsTo<'_> {
    /// How many there are, with those below 1024: at most 2¹⁶.
    pub(crate) fn count(&self) -> u32 {
        (self.entries.len() * self.inverse.kernel.len()) as u32
    }

    /// One of them; none if it is below 1024, or there are not so many. Each comes once.
    #[inline]
    pub(crate) fn port(&self, at: u16) -> Option<u16> {
        let Inverse { solutions, kernel } = self.inverse;
        let nothing = kernel[usize::from(at) & (kernel.len() - 1)];
        let entry = self.entries.get(usize::from(at) >> kernel.len().trailing_zeros())?;
        let port = solutions.get(self.base ^ usize::from(*entry))? ^ nothing;
        (port >= crate::owner::FIRST_PORT).then_some(port)
    }
}
