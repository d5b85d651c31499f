"""How others ask the sidecar: the local API, the pod network, metrics, and the HTTP server under them."""
