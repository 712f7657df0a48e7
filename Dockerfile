# syntax=docker/dockerfile:1

# Same Debian release as the final image: the binary links against its glibc.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# Has the build write into the binary what it is made of, for scanners of images to read.
RUN cargo install cargo-auditable --locked --version 0.7.7

# The dependencies alone, against an empty crate: this layer stays valid until Cargo.toml or Cargo.lock changes.
# Cargo refuses a manifest whose bench or test has no file, so those get an empty file, too.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches tests/lambda \
 && echo 'fn main() {}' | tee src/main.rs benches/sign.rs > tests/lambda/main.rs \
 && touch src/lib.rs \
 && cargo auditable build --release --locked --no-default-features --features otlp

COPY clients clients
COPY src src
# COPY keeps modification times, and cargo would take sources older than the empty crate for built ones.
RUN touch src/main.rs src/lib.rs \
 && cargo auditable build --release --locked --no-default-features --features otlp

# glibc, libgcc and CA certificates: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot

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
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"

COPY --from=build /build/target/release/presignd /presignd

# A number, not a name: Kubernetes can check runAsNonRoot only against a number.
USER 65532:65532
# Loopback, the default, cannot be reached from outside a container.
ENV BIND_ADDR=0.0.0.0:3000
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/presignd", "healthcheck"]
ENTRYPOINT ["/presignd"]
CMD ["serve"]
