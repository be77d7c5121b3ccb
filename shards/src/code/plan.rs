//! What to multiply survivors with to get the missing shards, and a memory for it.
//!
//! A plan depends on which shards are left and which are wanted, not on their bytes. For (10,5) there are
//! 3,003 sets of ten survivors; each inverse is a matrix of 100 numbers, found once.

use std::rc::Rc;

use hashbrown::HashMap;

use super::kernel::Coefficients;
use super::matrix::Matrix;
use super::{CodeError, Rs8, Shape, ShardSet};

/// Plans remembered; beyond that all are forgotten and found again when they are needed.
const PLANS_MAX: usize = 4096;

/// How to get some shards from as many others as there are data shards.
#[derive(Debug)]
pub struct Plan {
    pub(super) survivors: ShardSet,
    pub(super) wanted: ShardSet,
    pub(super) coefficients: Coefficients,
}

impl Plan {
    /// The shards it reads: as many as there are data shards. They are given in the order of their indices.
    pub fn survivors(&self) -> ShardSet {
        self.survivors
    }

    /// The shards it gives, in the order of their indices.
    pub fn wanted(&self) -> ShardSet {
        self.wanted
    }

    /// What wanted shard `row` takes survivor `column` times, both counted in the order of their indices: for
    /// those who compare codes.
    ///
    /// # Panics
    /// If there are not so many of either kind.
    pub fn coefficient(&self, row: usize, column: usize) -> u8 {
        self.coefficients.number(row, column)
    }

    pub(super) fn new(code: &Rs8, survivors: ShardSet, wanted: ShardSet) -> Result<Self, CodeError> {
        let shape = code.shape();
        let survivors = choose(shape, survivors, wanted)?;
        let generator = code.generator();
        let square = generator.select(survivors.iter());
        // PANIC: any square of rows of the generator can be inverted, and `choose` gives one of them.
        let inverse = square.inverted().expect("any data-many rows of the generator are independent");
        let rows: Matrix = generator.select(wanted.iter()).times(&inverse);
        let coefficients = Coefficients::new(code.kernel(), &rows);
        Ok(Self { survivors, wanted, coefficients })
    }
}

/// Which survivors to use: those with the lowest indices, as data shards take the least arithmetic.
pub(super) fn choose(shape: Shape, have: ShardSet, wanted: ShardSet) -> Result<ShardSet, CodeError> {
    for set in [have, wanted] {
        if let Some(index) = set.last().filter(|index| *index >= shape.shards()) {
            return Err(CodeError::NoSuchShard(index));
        }
    }
    if have.len() < shape.data() {
        return Err(CodeError::TooFew { have: have.len(), need: shape.data() });
    }
    Ok(have.iter().take(shape.data()).collect())
}

/// Plans that were needed before, of codes of any shape.
#[derive(Debug, Default)]
pub struct PlanCache {
    plans: HashMap<(Shape, ShardSet, ShardSet), Rc<Plan>>,
}

impl PlanCache {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// The plan that gets `wanted` from the first of `have`.
    pub fn plan(&mut self, code: &Rs8, have: ShardSet, wanted: ShardSet) -> Result<Rc<Plan>, CodeError> {
        let survivors = choose(code.shape(), have, wanted)?;
        let key = (code.shape(), survivors, wanted);
        if let Some(plan) = self.plans.get(&key).filter(|plan| plan.coefficients.is_for(code.kernel())) {
            return Ok(Rc::clone(plan));
        }
        if self.plans.len() >= PLANS_MAX {
            self.plans.clear();
        }
        let plan = Rc::new(Plan::new(code, survivors, wanted)?);
        self.plans.insert(key, Rc::clone(&plan));
        Ok(plan)
    }
}
