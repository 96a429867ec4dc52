//! Walks over the parser's syntax trees, compiled once.
//!
//! The parser's own visitors are generic: each visitor type makes a copy of the walk over some four hundred types, and half
//! of what a build compiled were such copies. Here is one walk that reads and one that changes; they take closures, and live
//! in a crate of their own that hardly ever changes.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Insert, ObjectName, Query, Statement, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};

/// What a reading walk meets, parents before children.
#[derive(Debug, Clone, Copy)]
pub enum Node<'a> {
    /// A query, also one inside of another.
    Query(&'a Query),
    /// What stands in FROM.
    Factor(&'a TableFactor),
    /// The name of a relation.
    Relation(&'a ObjectName),
    /// An expression.
    Expr(&'a Expr),
}

/// What a changing walk meets: queries and factors before their children, expressions after them.
#[derive(Debug)]
pub enum NodeMut<'a> {
    /// A query.
    Query(&'a mut Query),
    /// What stands in FROM.
    Factor(&'a mut TableFactor),
    /// An expression whose parts are done.
    Expr(&'a mut Expr),
}

/// A tree that can be walked.
pub trait Tree {
    /// Shows every node to `see` until it breaks.
    fn read(&self, see: &mut dyn FnMut(Node<'_>) -> ControlFlow<()>) -> ControlFlow<()>;

    /// Gives every node to `turn` until it breaks.
    fn turn(&mut self, turn: &mut dyn FnMut(NodeMut<'_>) -> ControlFlow<()>) -> ControlFlow<()>;

    /// Whether `is_it` holds for any node.
    fn any(&self, mut is_it: impl FnMut(Node<'_>) -> bool) -> bool
    where
        Self: Sized,
    {
        let see = &mut |node: Node<'_>| {
            if is_it(node) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.read(see).is_break()
    }

    /// Shows every node.
    fn each(&self, mut see: impl FnMut(Node<'_>))
    where
        Self: Sized,
    {
        let _: ControlFlow<()> = self.read(&mut |node| {
            see(node);
            ControlFlow::Continue(())
        });
    }

    /// Changes every node.
    fn change_all(&mut self, mut turn: impl FnMut(NodeMut<'_>))
    where
        Self: Sized,
    {
        let _: ControlFlow<()> = self.turn(&mut |node| {
            turn(node);
            ControlFlow::Continue(())
        });
    }

    /// Changes every node, until one fails.
    ///
    /// # Errors
    /// What `turn` fails with.
    fn change<E>(&mut self, mut turn: impl FnMut(NodeMut<'_>) -> Result<(), E>) -> Result<(), E>
    where
        Self: Sized,
    {
        let mut failed = None;
        let _: ControlFlow<()> = self.turn(&mut |node| match turn(node) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        });
        failed.map_or(Ok(()), Err)
    }
}

macro_rules! trees {
    ($($tree:ty),*) => {$(
        impl Tree for $tree {
            fn read(&self, see: &mut dyn FnMut(Node<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
                self.visit(&mut Reading(see))
            }

            fn turn(
                &mut self,
                turn: &mut dyn FnMut(NodeMut<'_>) -> ControlFlow<()>,
            ) -> ControlFlow<()> {
                VisitMut::visit(self, &mut Turning(turn))
            }
        }
    )*};
}

trees!(Statement, Query, Insert, Expr);

struct Reading<'a>(&'a mut dyn FnMut(Node<'_>) -> ControlFlow<()>);

impl Visitor for Reading<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        (self.0)(Node::Query(query))
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<()> {
        (self.0)(Node::Relation(name))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        (self.0)(Node::Factor(factor))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        (self.0)(Node::Expr(expr))
    }
}

struct Turning<'a>(&'a mut dyn FnMut(NodeMut<'_>) -> ControlFlow<()>);

impl VisitorMut for Turning<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        (self.0)(NodeMut::Query(query))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        (self.0)(NodeMut::Factor(factor))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        (self.0)(NodeMut::Expr(expr))
    }
}
