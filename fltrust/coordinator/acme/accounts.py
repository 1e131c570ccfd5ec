"""Accounts: opened by a credential, bound to one server, known by their key."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from fltrust.coordinator.acme.evidence import KIND
from fltrust.coordinator.authority import Authority
from fltrust.coordinator.ledger import Work
from fltrust.coordinator.operators import check_granter
from fltrust.enrollment.accounts import check_account
from fltrust.enrollment.mackeys import MacPurpose
from fltrust.enrollment.types import Approval, EnrollmentProtocol, TokenRecord, TokenStatus
from fltrust.errors import Malformed, Refused
from fltrust.identity import Role, SpiffeId
from fltrust.protocols.acme.jwk import AccountKey
from fltrust.protocols.acme.jws import check_binding, read_binding
from fltrust.protocols.acme.messages import AccountChange, NewAccount
from fltrust.protocols.acme.problems import AcmeProblem, ProblemType, unauthorized
from fltrust.protocols.acme.state import Account, AccountStatus


def new_id() -> str:
    """An id of an object of ours; nobody guesses it, and nothing depends on that."""
    return secrets.token_hex(12)


class KeyTaken(AcmeProblem):
    """The key of a key change is another account's: answered with where that is (RFC 8555, 7.3.5)."""

    def __init__(self, account_id: str) -> None:
        super().__init__(ProblemType.MALFORMED, "expected a key that no account has", status=409)
        self.account_id = account_id


@dataclass(frozen=True, slots=True)
class Opened:
    account: Account
    is_new: bool


class AccountDesk:
    """Opens and changes accounts; every method is one transaction, on a thread of the write lane."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    def open(self, request: NewAccount, key: AccountKey, *, url: str) -> Opened:
        """Give the account of this key, opened now if there is none (RFC 8555, 7.3).

        1. A key that has an account gets it, whatever else the request says; a deactivated one is refused.
        2. The external account binding is there, was made with the key of its credential, for this account
           key and this url. Whether there is such a credential is not told before that.
        3. The credential is pending, its maker stands well, and it is spent now: of two requests that show it
           one gets an account.
        4. The server's name is enrolled for this account alone; a name that is enrolled or revoked needs a
           credential that replaces, and a policy that asks nobody to approve that.
        """
        # 1.
        found = self._authority.ledger
        with found.reading() as tx:
            known = tx.acme.account_of_key(key.thumbprint)
        if known is None and request.only_existing:
            raise AcmeProblem(ProblemType.ACCOUNT_DOES_NOT_EXIST, "expected the key of an account")
        if known is not None:
            return Opened(_alive(known), is_new=False)
        # 2.
        if request.binding is None:
            raise AcmeProblem(
                ProblemType.EXTERNAL_ACCOUNT_REQUIRED,
                "expected an external account binding; an operator makes its credential: "
                "fltrust acme credential",
            )
        binding = read_binding(request.binding)
        try:
            mac_key = self._authority.mac_keys.key_of(MacPurpose.ACME, binding.kid)
        except Malformed:
            raise unauthorized("expected an account binding made with the credential's key") from None
        check_binding(binding, mac_key=mac_key, account=key, url=url)
        with self._authority.ledger.writing() as work:
            again = work.tx.acme.account_of_key(key.thumbprint)
            if again is not None:
                return Opened(_alive(again), is_new=False)
            # 3. and 4.
            token = _spend(binding.kid, work)
            check_granter(token.created_by, work)
            account = _account(token, key, request.contacts, work)
            self._enroll(token, account, work)
            work.tx.acme.add_account(account)
        return Opened(account, is_new=True)

    def _enroll(self, token: TokenRecord, account: Account, work: Work) -> None:
        approval = Approval(
            token.role,
            token.name,
            token.replace,
            granted_by=token.created_by,
            dns_names=token.dns_names,
            claims={"credential": token.token_id},
        )
        policy = self._authority.enroller.requests.policy
        who = SpiffeId(self._authority.settings.domain, token.role, token.name)
        if token.replace and who in work.state.identities and policy.replace:
            needed = policy.needed(approval, evidence=KIND, protocol=EnrollmentProtocol.ACME)
            raise unauthorized(
                f"expected a name that is not enrolled: taking one over needs {needed} operators, and an "
                "account cannot wait for them"
            )
        self._authority.enroller.open_for_account(approval, account.account_id, work, evidence=KIND)

    def change(self, account_id: str, change: AccountChange) -> Account:
        """Change contacts, or deactivate for good."""
        with self._authority.ledger.writing() as work:
            account = self.alive(account_id, work)
            if change.contacts is not None:
                account = replace(account, contacts=change.contacts)
            if change.deactivate:
                account = replace(account, status=AccountStatus.DEACTIVATED)
            work.tx.acme.put_account(account)
        return account

    def change_key(self, account_id: str, *, old: AccountKey, new: AccountKey) -> Account:
        """Give an account another key. The old one must be the account's still, the new one nobody's."""
        with self._authority.ledger.writing() as work:
            account = self.alive(account_id, work)
            if account.thumbprint != old.thumbprint:
                raise unauthorized("expected the account's present key as the old one")
            holder = work.tx.acme.account_of_key(new.thumbprint)
            if holder is not None:
                raise KeyTaken(holder.account_id)
            account = replace(account, thumbprint=new.thumbprint, jwk=new.canonical)
            work.tx.acme.put_account(account)
        return account

    def alive(self, account_id: str, work: Work) -> Account:
        """The account under the head's lock; ``unauthorized`` once it was deactivated."""
        account = work.tx.acme.account(account_id)
        if account is None:
            raise AcmeProblem(ProblemType.ACCOUNT_DOES_NOT_EXIST, "expected an account of this server's")
        return _alive(account)

    def entitled(self, account_id: str, work: Work) -> Account:
        """The account, if its server stands well and was opened for it still."""
        account = self.alive(account_id, work)
        who = self.server_of(account)
        approval = Approval(Role.SERVER, account.server, replace=False, account=account_id)
        try:
            check_account(
                who,
                approval,
                evidence=KIND,
                standing=work.state.identities.get(who),
                record=work.tx.enrollments.get(who),
            )
        except Refused as error:
            raise unauthorized(error.message) from error
        return account

    def server_of(self, account: Account) -> SpiffeId:
        return SpiffeId(self._authority.settings.domain, Role.SERVER, account.server)


def _alive(account: Account) -> Account:
    if account.status is not AccountStatus.VALID:
        raise unauthorized(f"expected an account that is valid, this one is {account.status}")
    return account


def _spend(credential: str, work: Work) -> TokenRecord:
    token = work.tx.tokens.get(credential, now=work.now)
    if token is None or token.role is not Role.SERVER:
        raise unauthorized("expected a credential of this server's")
    if token.status is not TokenStatus.PENDING or not work.tx.tokens.spend(credential, now=work.now):
        raise unauthorized(f"expected a credential that can be used, this one is {token.status}")
    return token


def _account(token: TokenRecord, key: AccountKey, contacts: tuple[str, ...], work: Work) -> Account:
    return Account(
        account_id=new_id(),
        server=token.name,
        names=token.dns_names,
        credential=token.token_id,
        thumbprint=key.thumbprint,
        jwk=key.canonical,
        contacts=contacts,
        status=AccountStatus.VALID,
        created_at=work.now,
    )
