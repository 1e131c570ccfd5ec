"""Run in the environment of the `spiffe` package: tells, as JSON lines, each X.509 context that is streamed.

python workload_client.py SOCKET COUNT
"""

from __future__ import annotations

import json
import sys
import threading

from spiffe import TrustDomain, WorkloadApiClient, X509Source

socket, count = sys.argv[1], int(sys.argv[2])
seen = 0
done = threading.Event()


def tell(context) -> None:
    global seen
    svid = context.default_svid
    domains = [str(bundle.trust_domain) for bundle in context.x509_bundle_set.bundles]
    line = {
        "id": str(svid.spiffe_id),
        "serial": f"{svid.leaf.serial_number:040x}",
        "chain": len(svid.cert_chain),
        "key_matches": svid.private_key.public_key() == svid.leaf.public_key(),
        "bundles": sorted(domains),
    }
    print(json.dumps(line), flush=True)
    seen += 1
    if seen == count:
        done.set()


def fail(error: Exception) -> None:
    print(json.dumps({"error": type(error).__name__, "text": str(error)}), flush=True)
    done.set()


if count == 0:  # ask once, and tell what it is refused with
    with WorkloadApiClient(socket) as client:
        try:
            client.fetch_x509_svid(timeout=10)
        except Exception as error:
            fail(error)
    sys.exit(0)
with WorkloadApiClient(socket) as client:
    handler = client.stream_x509_contexts(tell, fail)
    done.wait(60)
    handler.cancel()
    try:
        client.fetch_jwt_svid(audience={"anybody"}, timeout=5)
    except Exception as error:
        print(json.dumps({"jwt": str(error)}), flush=True)
with X509Source(socket_path=socket, timeout_in_seconds=10) as source:
    domain = TrustDomain(str(source.svid.spiffe_id.trust_domain))
    roots = source.get_bundle_for_trust_domain(domain).x509_authorities
    print(json.dumps({"source": str(source.svid.spiffe_id), "roots": len(roots)}), flush=True)
