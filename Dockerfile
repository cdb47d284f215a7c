# Two stages: packages are installed from the lock, by hash, in the first; the second has neither
# pip's cache nor a compiler. Nothing here depends on the processor: the base image and the wheels
# of the lock exist for amd64 and arm64.
ARG PYTHON=3.13-slim-bookworm

FROM docker.io/library/python:${PYTHON} AS build
WORKDIR /build
COPY requirements.lock requirements-dev.lock ./
RUN python -m venv /opt/migration-guard \
    && /opt/migration-guard/bin/pip install --no-cache-dir --require-hashes --only-binary :all: \
        -r requirements.lock
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY webhook ./webhook
# What builds the package is in the lock of the developers; it stays in this stage.
RUN python -m venv /tools \
    && /tools/bin/pip install --no-cache-dir --require-hashes -r requirements-dev.lock \
    && /tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/migration-guard/bin/pip install --no-cache-dir --no-deps /wheel/*.whl

FROM docker.io/library/python:${PYTHON}
COPY --from=build /opt/migration-guard /opt/migration-guard
ENV PATH=/opt/migration-guard/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A number, so that Kubernetes can tell that it is not root. Nothing below / needs to be written.
USER 65532:65532
WORKDIR /
EXPOSE 8443 8080
ENTRYPOINT ["migration-guard", "serve"]
