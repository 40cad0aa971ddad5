"""A database that counts statements, and transactions of more than one statement."""

from __future__ import annotations


class CountedTransaction:
    """Passes statements on and counts them."""

    def __init__(self, inner, said):
        self._inner = inner
        self._said = said

    def run(self, statement, **values):
        self._said.append(statement)
        return self._inner.run(statement, **values)

    def run_all(self, statements):
        self._said += [statement.text for statement in statements]
        return self._inner.run_all(statements)

    def row(self, statement, **values):
        self._said.append(statement)
        return self._inner.row(statement, **values)

    def rows(self, statement, **values):
        self._said.append(statement)
        return self._inner.rows(statement, **values)


class CountedDatabase:
    """`statements` are all that ran; `transactions` are writes, and reads of more than one statement."""

    def __init__(self, inner):
        self.inner = inner
        self.statements = []
        self.transactions = []

    def read(self, work):
        return self.inner.read(lambda transaction: self._count(work, transaction, least=2))

    def write(self, work):
        return self.inner.write(lambda transaction: self._count(work, transaction, least=0))

    def _count(self, work, transaction, *, least):
        said = []
        answer = work(CountedTransaction(transaction, said))
        self.statements += said
        if len(said) >= least:
            self.transactions.append(said)
        return answer

    def __getattr__(self, name):
        return getattr(self.inner, name)
