# syntax=docker/dockerfile:1
#
#   docker build -t presignd .                       for production: no embedded store
#   docker build -t presignd:dev --target dev .      `presignd dev`, to try it out
#
# The base images are named by tags, because these get security fixes. The provenance of a released image has their
# digests.

# The builder has the same Debian release as the final image: the binary links against its glibc.
FROM rust:1.95-slim-trixie AS dependencies
WORKDIR /build

# cargo-auditable writes the list of crates into the binary, for image scanners to read. It is built without
# optimization, because it has little to do.
RUN cargo install cargo-auditable --locked --version 0.7.7 --debug

# The dependencies are built first, against an empty crate. This layer stays valid until Cargo.toml or
# Cargo.lock changes. Cargo refuses a manifest whose bench or test has no file, so those get an empty one.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches tests/lambda tests/traces \
 && echo 'fn main() {}' | tee src/main.rs benches/sign.rs tests/lambda/main.rs > tests/traces/main.rs \
 && touch src/lib.rs \
 && cargo auditable build --release --locked --no-default-features --features otlp

FROM dependencies AS build
COPY clients clients
COPY src src
# COPY keeps modification times, and cargo would not rebuild sources that are older than the empty crate.
RUN touch src/main.rs src/lib.rs \
 && cargo auditable build --release --locked --no-default-features --features otlp

# The same with the embedded store, which needs more crates.
FROM dependencies AS dependencies-dev
RUN cargo auditable build --release --locked --features otlp \
 && mkdir /data

FROM dependencies-dev AS build-dev
COPY clients clients
COPY src src
RUN touch src/main.rs src/lib.rs \
 && cargo auditable build --release --locked --features otlp

# A container's loopback address cannot be reached from outside, hence --in-container.
FROM gcr.io/distroless/cc-debian13:nonroot AS dev
COPY LICENSE-MIT LICENSE-APACHE /licenses/
COPY --from=build-dev /build/target/release/presignd /presignd
COPY --from=build-dev --chown=65532:65532 /data /data
USER 65532:65532
VOLUME /data
EXPOSE 3000 9000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/presignd", "healthcheck"]
ENTRYPOINT ["/presignd"]
CMD ["dev", "--in-container", "--data-dir", "/data"]

# glibc, libgcc and CA certificates: no shell, no package manager.
FROM gcr.io/distroless/cc-debian13:nonroot

ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="presignd" \
      org.opencontainers.image.description="An HTTP service that issues presigned S3 upload URLs" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian13:nonroot"

COPY LICENSE-MIT LICENSE-APACHE /licenses/
COPY --from=build /build/target/release/presignd /presignd

# A number, because Kubernetes cannot check runAsNonRoot against a name.
USER 65532:65532
# A container's loopback address cannot be reached from outside.
ENV BIND_ADDR=0.0.0.0:3000
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/presignd", "healthcheck"]
ENTRYPOINT ["/presignd"]
CMD ["serve"]
