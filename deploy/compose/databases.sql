-- A database for each service that keeps something; Skald's own is made by the image.
CREATE DATABASE catalog;
CREATE DATABASE sales;
CREATE DATABASE orders;
CREATE DATABASE audit;
CREATE DATABASE notification;
CREATE DATABASE views;
