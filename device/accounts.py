"""The accounts of one device: several clouds and developers side by side.

A home is one account, `main`. Others lie in it as homes of their own, HOME/accounts/NAME, with
keys of their own: no two clouds can tell that they serve the same device. A model is asked for
by its name, or as ACCOUNT/NAME where two accounts have one of that name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from triparty.common.documents import check_name
from triparty.common.errors import SettingsError, StateError
from triparty.device.home import MAIN, HeldModel, Home


@dataclass(frozen=True)
class Accounts:
    """The accounts below a home.

    Attributes:
        main: the home.
    """

    main: Home

    def named(self, name: str | None) -> Home:
        """The account of a name, enrolled or not; None means `main`.

        Raises:
            ManifestError: no name.
        """
        if name in (None, MAIN):
            return self.main
        return self.main.account(check_name(name, what="account"))

    def enrolled(self) -> list[Home]:
        """All that are enrolled, `main` first.

        Raises:
            StateError: none is.
        """
        folder = self.main.folder / "accounts"
        others = [self.main.account(path.name) for path in sorted(folder.glob("[!.]*"))]
        found = [home for home in (self.main, *others) if home.is_enrolled]
        if not found:
            self.main.access()  # says what to do
        return found

    def models(self) -> list[HeldModel]:
        """The models of all accounts.

        Raises:
            StateError: no account, or a record is damaged.
        """
        return [model for home in self.enrolled() for model in home.held()]

    def holding(self, wanted: str) -> tuple[Home, HeldModel]:
        """The model that is meant by NAME or ACCOUNT/NAME, and whose it is.

        Raises:
            StateError: no account has it; a PoolEmptyError if its instances were used.
            SettingsError: several have one of that name.
        """
        account, slash, name = wanted.rpartition("/")
        homes = self.enrolled()
        if slash:
            homes = [home for home in homes if home.account_name == account]
            if not homes:
                have = ", ".join(home.account_name for home in self.enrolled())
                raise StateError(f"this device has no account '{account}' (it has: {have})")
        found = [(home, model) for home in homes for model in home.held() if model.name == name]
        if not found:
            for home in homes:
                if home.has_used(name):
                    raise home.pool_empty(name)
            have = ", ".join(asked_names(self.models())) or "none"
            raise StateError(
                f"this device has no bundle of '{wanted}' (it has: {have}): ask the developer "
                f"for a grant, then run 'triparty device pull'"
            )
        if len(found) > 1:
            names = " or ".join(f"{model.account}/{model.name}" for _, model in found)
            raise SettingsError(f"several accounts have a model '{name}': ask for {names}")
        return found[0]


def asked_names(models: Sequence[HeldModel]) -> list[str]:
    """How each model can be asked for: by its name, if no other account has one of it."""
    counts = Counter(model.name for model in models)
    return [
        model.name if counts[model.name] == 1 else f"{model.account}/{model.name}"
        for model in models
    ]
