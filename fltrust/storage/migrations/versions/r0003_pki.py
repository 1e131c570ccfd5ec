"""The PKI: events about CAs, requests and what operators decide, revocation status, and protocols.

Times are text: RFC 3339 in UTC with microseconds.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from cryptography import x509

from fltrust.pki.pointers import issuer_of

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, one part after the other."""
    _events()
    _keys_of_certificates()
    _records()
    _requests()
    _operations()
    _spent_evidence()
    _statuses()
    _acme()
    _foreign_domains()


def _events() -> None:
    op.add_column("events", sa.Column("domain", sa.String(length=128), nullable=True))
    op.add_column("events", sa.Column("sequence", sa.BigInteger(), nullable=True))
    op.add_column("events", sa.Column("issuer", sa.String(length=40), nullable=True))


def _keys_of_certificates() -> None:
    """A key in hardware may be certified again for its holder: more than one certificate of a key."""
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint("certificates_key_id_key", "certificates", type_="unique")
    else:
        names = {"uq": "uq_%(table_name)s_%(column_0_name)s"}  # SQLite's constraint has none
        with op.batch_alter_table("certificates", naming_convention=names) as table:
            table.drop_constraint("uq_certificates_key_id", type_="unique")
    op.create_index("certificates_by_key", "certificates", ["key_id", "not_after"], unique=False)


def _spent_evidence() -> None:
    op.create_table(
        "spent_evidence",
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("spent_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("kind", "digest", name="spent_evidence_pkey"),
    )


def _records() -> None:
    op.add_column("tokens", sa.Column("dns_names", sa.Text(), nullable=True))
    op.add_column("enrollments", sa.Column("dns_names", sa.Text(), nullable=True))
    op.add_column("enrollments", sa.Column("claims", sa.Text(), nullable=True))
    op.create_table(
        "sightings",
        sa.Column("spiffe_id", sa.String(length=256), nullable=False),
        sa.Column("seen_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("spiffe_id"),
    )


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("request_id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("protocol", sa.String(length=16), nullable=False),
        sa.Column("evidence", sa.String(length=32), nullable=False),
        sa.Column("evidence_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("csr", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(length=64), nullable=False),
        sa.Column("node_key", sa.LargeBinary(), nullable=True),
        sa.Column("role", sa.String(length=16), nullable=True),
        sa.Column("name", sa.String(length=63), nullable=True),
        sa.Column("dns_names", sa.Text(), nullable=False),
        sa.Column("replace", sa.Boolean(), nullable=False),
        sa.Column("granted_by", sa.String(length=256), nullable=True),
        sa.Column("claims", sa.Text(), nullable=False),
        sa.Column("account", sa.String(length=32), nullable=True),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("needed", sa.Integer(), nullable=False),
        sa.Column("submitted_at", sa.String(length=32), nullable=False),
        sa.Column("expires_at", sa.String(length=32), nullable=False),
        sa.Column("decided_at", sa.String(length=32), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("serial", sa.String(length=40), nullable=True),
        sa.Column("log_size", sa.BigInteger(), nullable=True),
        sa.Column("issuers", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("request_id"),
    )
    op.create_index("requests_by_state", "requests", ["state", "request_id"], unique=False)
    op.create_index("requests_by_key", "requests", ["key_id"], unique=False)
    op.create_index("requests_by_name", "requests", ["role", "name"], unique=False)
    op.create_table(
        "request_decisions",
        sa.Column("request_id", sa.String(length=32), nullable=False),
        *_decision(),
        sa.ForeignKeyConstraint(["request_id"], ["requests.request_id"]),
        sa.PrimaryKeyConstraint("request_id", "position", name="request_decisions_pkey"),
    )


def _operations() -> None:
    op.create_table(
        "operations",
        sa.Column("operation_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("proposer", sa.String(length=256), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("needed", sa.Integer(), nullable=False),
        sa.Column("proposed_at", sa.String(length=32), nullable=False),
        sa.Column("expires_at", sa.String(length=32), nullable=False),
        sa.Column("decided_at", sa.String(length=32), nullable=True),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("operation_id"),
    )
    op.create_index("operations_by_state", "operations", ["state", "operation_id"], unique=False)
    op.create_table(
        "operation_decisions",
        sa.Column("operation_id", sa.String(length=32), nullable=False),
        *_decision(),
        sa.Column("signed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["operation_id"], ["operations.operation_id"]),
        sa.PrimaryKeyConstraint("operation_id", "position", name="operation_decisions_pkey"),
    )


def _decision() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("operator", sa.String(length=256), nullable=False),
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("is_approval", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
    )


def _statuses() -> None:
    op.add_column("certificates", sa.Column("issuer", sa.String(length=40), nullable=True))
    _name_issuers()
    op.create_index("certificates_by_issuer", "certificates", ["issuer", "not_after"], unique=False)
    op.create_table(
        "statuses",
        sa.Column("serial", sa.String(length=40), nullable=False),
        sa.Column("issuer", sa.String(length=40), nullable=False),
        sa.Column("not_after", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("since", sa.String(length=32), nullable=False),
        sa.Column("reason", sa.Integer(), nullable=False),
        sa.Column("invalid_since", sa.String(length=32), nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=False),
        sa.Column("held_by", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("serial"),
    )
    op.create_index("statuses_by_change", "statuses", ["issuer", "epoch"], unique=False)
    op.create_index("statuses_by_end", "statuses", ["issuer", "not_after"], unique=False)
    op.create_table(
        "revoked_issuers",
        sa.Column("issuer", sa.String(length=40), nullable=False),
        sa.Column("since", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("issuer"),
    )
    op.create_table(
        "status_feed",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "crl_progress",
        sa.Column("issuer", sa.String(length=40), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("scheduled_at", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("issuer"),
    )


def _name_issuers() -> None:
    """Say of certificates from before which CA issued them. Statuses follow when the coordinator starts."""
    connection = op.get_bind()
    table = sa.table("certificates", sa.column("serial"), sa.column("der"), sa.column("issuer"))
    found = connection.execute(sa.select(table.c.serial, table.c.der)).all()
    named = [{"which": row.serial, "by": issuer_of(x509.load_der_x509_certificate(row.der))} for row in found]
    if named:
        changed = sa.update(table).where(table.c.serial == sa.bindparam("which"))
        connection.execute(changed.values(issuer=sa.bindparam("by")), named)


def _acme() -> None:
    op.create_table(
        "acme_accounts",
        sa.Column("account_id", sa.String(length=32), nullable=False),
        sa.Column("server", sa.String(length=63), nullable=False),
        sa.Column("names", sa.Text(), nullable=False),
        sa.Column("credential", sa.String(length=64), nullable=False),
        sa.Column("thumbprint", sa.String(length=64), nullable=False),
        sa.Column("jwk", sa.LargeBinary(), nullable=False),
        sa.Column("contacts", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("account_id"),
        sa.UniqueConstraint("credential"),
        sa.UniqueConstraint("thumbprint"),
    )
    op.create_table(
        "acme_orders",
        sa.Column("order_id", sa.String(length=32), nullable=False),
        sa.Column("account_id", sa.String(length=32), nullable=False),
        sa.Column("names", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.Column("expires_at", sa.String(length=32), nullable=False),
        sa.Column("replaces", sa.String(length=128), nullable=True),
        sa.Column("csr", sa.LargeBinary(), nullable=True),
        sa.Column("request_id", sa.String(length=32), nullable=True),
        sa.Column("serial", sa.String(length=40), nullable=True),
        sa.Column("chain", sa.LargeBinary(), nullable=True),
        sa.Column("problem", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["acme_accounts.account_id"]),
        sa.PrimaryKeyConstraint("order_id"),
    )
    op.create_index("acme_orders_by_account", "acme_orders", ["account_id", "created_at"], unique=False)
    op.create_index("acme_orders_by_replaced", "acme_orders", ["replaces"], unique=False)
    op.create_table(
        "acme_authorizations",
        sa.Column("authorization_id", sa.String(length=32), nullable=False),
        sa.Column("order_id", sa.String(length=32), nullable=False),
        sa.Column("account_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("expires_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["acme_orders.order_id"]),
        sa.PrimaryKeyConstraint("authorization_id"),
    )
    op.create_index("acme_authorizations_by_order", "acme_authorizations", ["order_id"], unique=False)
    op.create_table(
        "acme_challenges",
        sa.Column("authorization_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("validated_at", sa.String(length=32), nullable=True),
        sa.Column("problem", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["authorization_id"], ["acme_authorizations.authorization_id"]),
        sa.PrimaryKeyConstraint("authorization_id", "kind", name="acme_challenges_pkey"),
    )


def _foreign_domains() -> None:
    op.create_table(
        "foreign_domains",
        sa.Column("domain", sa.String(length=128), nullable=False),
        sa.Column("address", sa.String(length=260), nullable=False),
        sa.Column("endpoint_url", sa.Text(), nullable=False),
        sa.Column("profile", sa.String(length=16), nullable=False),
        sa.Column("endpoint_spiffe_id", sa.Text(), nullable=True),
        sa.Column("bundle", sa.LargeBinary(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("lent", sa.Text(), nullable=False),
        sa.Column("has_ended", sa.Boolean(), nullable=False),
        sa.Column("heard_at", sa.String(length=32), nullable=True),
        sa.PrimaryKeyConstraint("domain"),
    )
