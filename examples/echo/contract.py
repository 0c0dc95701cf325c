"""The contract's messages and stubs; those of a service that stays are written by `make stubs` into protos/gen."""

import grpc

pb, pb_grpc = grpc.protos_and_services("echo/echo.proto")
NAME = pb.DESCRIPTOR.services_by_name["Echo"].full_name
