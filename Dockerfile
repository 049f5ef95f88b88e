# lsnproxy alone: one static binary, no shell, no package manager, no root.
#
#   docker build --build-arg VERSION=$(git describe --always --dirty) -t lsnproxy .
#   docker run --network host lsnproxy serve --node 127.0.0.1:5432 --node 127.0.0.1:5433
#
# The proxy listens on loopback unless told otherwise, and does not authenticate
# clients: to publish its port, give --listen an address and mind who can reach it.
# There is no HEALTHCHECK because there is no client in the image to ask with: probe
# GET /healthz and /readyz on the address that --http gives.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /lsnproxy ./cmd/lsnproxy

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /lsnproxy /lsnproxy
USER 65532:65532
ENTRYPOINT ["/lsnproxy"]
CMD ["serve"]
