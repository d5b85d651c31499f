"""Who may ask the API server: three users with fixed tokens, their kubeconfigs, and the service-account key.

What each of them may do is RBAC's and stands in the objects a test applies; only the administrator may do everything
from the start. Nothing here is secret: the API server listens inside a network namespace that ends with the tests.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class User:
    """A user as the API server knows it."""

    label: str
    """Short, for file names and tokens."""
    name: str
    """The subject of role bindings."""
    groups: tuple[str, ...] = ()

    @property
    def token(self) -> str:
        """What a request carries."""
        return f"{self.label}-token"


ADMIN = User("admin", "admin", ("system:masters",))
CONTROLLER = User(
    "controller",
    "system:serviceaccount:membudget-system:membudget-controller",
    ("system:serviceaccounts", "system:serviceaccounts:membudget-system"),
)
TENANT_A = User("tenant-a", "tenant-a")
USERS = (ADMIN, CONTROLLER, TENANT_A)


@dataclass(frozen=True)
class Credentials:
    """The files, all in one folder."""

    folder: Path

    @property
    def certificates(self) -> Path:
        """Where the API server puts its own certificate at its first start."""
        return self.folder / "certificates"

    @property
    def authority(self) -> Path:
        """The certificate that clients verify the API server's with: the same file, which ends with its issuer's."""
        return self.certificates / "apiserver.crt"

    @property
    def service_account_key(self) -> Path:
        """Signs the tokens that the API server issues."""
        return self.folder / "service-account.key"

    @property
    def tokens(self) -> Path:
        """For --token-auth-file."""
        return self.folder / "tokens.csv"

    def kubeconfig(self, user: User) -> Path:
        """The user's."""
        return self.folder / f"{user.label}.kubeconfig"

    def write(self, server: str) -> None:
        """Writes all but the certificate; `server` is the API server's URL."""
        self.folder.mkdir()
        make_key = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"]
        subprocess.run([*make_key, self.service_account_key], check=True, capture_output=True)
        lines = [f'{user.token},{user.name},{user.label},"{",".join(user.groups)}"' for user in USERS]
        self.tokens.write_text("\n".join(lines))
        for user in USERS:
            self.kubeconfig(user).write_text(self._kubeconfig(user, server))

    def _kubeconfig(self, user: User, server: str) -> str:
        """JSON, which is YAML."""
        cluster = {"server": server, "certificate-authority": str(self.authority)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user.label, "user": {"token": user.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user.label}}],
            "current-context": "test",
        }
        return json.dumps(config, indent=2)
